"""The whole chain on one folder of source code, from files to a report.

Every step is an ordinary command of the toolkit, printed as it runs, so that it can be repeated by hand.
"""

from __future__ import annotations

import pytest
from pygments.lexers import get_lexer_by_name

from megatron.neox.corpus.extraction.languages import (
    LANGUAGES,
    find_language,
    is_source,
    language_of,
    languages_by_name,
)
from megatron.neox.downloads import evaluation_sets
from megatron.neox.errors import InputError


def test_the_twelve_come_first() -> None:
    assert tuple(LANGUAGES)[:12] == evaluation_sets.LANGUAGES
    assert len(LANGUAGES) >= 25


def test_every_language_has_a_lexer_and_endings_of_its_own() -> None:
    for row in LANGUAGES.values():
        assert get_lexer_by_name(row.lexer).name
        assert row.extensions
        assert all(extension == extension.lower() and extension[0] == "." for extension in row.extensions)
    shared = {
        extension: languages_by_name(b"a" + extension.encode())
        for row in LANGUAGES.values()
        for extension in row.extensions
        if len(languages_by_name(b"a" + extension.encode())) > 1
    }
    assert shared == {".h": ("C", "C++", "Objective-C")}


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("a.py", "Python"), ("UPPER.PY", "Python"), ("a.tsx", "TypeScript"), ("a.jsx", "JavaScript"),
        ("a.mjs", "JavaScript"), ("a.cjs", "JavaScript"), ("build.sbt", "Scala"), ("a.d.ts", "TypeScript"),
        ("SConstruct", "Python"), ("BUILD", "Python"), ("Rakefile", "Ruby"), ("Gemfile", "Ruby"), ("a.hpp", "C++"),
        ("mysconstruct", None), ("sconstruct", None), ("BUILDS", None), ("construct", None), ("a.xpm", None),
        ("py", None), (".py", None), ("a.py.orig", None), ("a.php5", "PHP"), ("a.rs.in", None), ("a", None),
    ],
)  # fmt: skip
def test_names_by_the_table(name: str, language: str | None) -> None:
    assert language_of(name.encode(), "text") == language


@pytest.mark.parametrize(
    ("text", "beside", "language"),
    [
        ("int f(int);\n", None, "C"),
        ("int f(int);\n", "C", "C"),
        ("int f(int);\n", "C++", "C++"),
        ("int f(int);\n", "Objective-C", "Objective-C"),
        ("int f(int);\n", "Python", "C"),
        ("class A;\n", "C", "C++"),
        ("namespace a {\nint x;\n}\n", None, "C++"),
        ("#include <vector>\n", "C", "C++"),
        ("#include <string.h>\n/* class A; std::string */ // template <\nstruct class_t x;\n", "C", "C"),
        ('#ifdef __cplusplus\nextern "C" {\nclass A;\n#endif\nint f(int);\n', "C", "C"),
        ("#if defined(__cplusplus)\nnamespace a {\n#else\nint f(int);\n#endif\n", "C", "C"),
        ("@interface A : B\n@end\n", "C++", "Objective-C"),
        ("#import <Foundation/Foundation.h>\n", "C", "Objective-C"),
    ],
)
def test_headers_by_their_text_and_what_stands_beside(text: str, beside: str | None, language: str) -> None:
    assert language_of(b"a.h", text, beside) == language


def test_endings_that_others_use_too() -> None:
    assert language_of(b"a.ts", "export const x = 1\n") == "TypeScript"
    assert language_of(b"a.ts", '<?xml version="1.0"?><TS version="2.1">') is None
    assert language_of(b"a.ts", "\n<!DOCTYPE TS>\n<TS>") is None
    assert language_of(b"a.m", "#import <A/A.h>\n") == "Objective-C"
    assert language_of(b"a.m", "function y = f(x)\n% MATLAB\nend\n") is None
    assert language_of(b"a.inc", "<?php $x = 1;\n") == "PHP"
    assert language_of(b"a.inc", "mov ax, 1\n") is None


def test_a_name_alone_may_keep_a_file_out() -> None:
    assert is_source(b"a.txt", None) == "other_extension"
    assert is_source(b"a.go", {"C"}) == "other_language"
    assert is_source(b"a.h", {"C++"}) == ""
    assert is_source(b"a.go", None) == ""


def test_an_unknown_language_is_told() -> None:
    assert find_language("c++", "x").name == "C++"
    with pytest.raises(InputError, match=r"clones: Pyton is no language of the table; did you mean Python\?"):
        find_language("Pyton", "clones")

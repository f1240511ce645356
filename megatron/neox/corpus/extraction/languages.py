"""The table of languages: which file names are whose, and what the text decides where a name is not enough.

Endings are matched whatever their case, whole file names exactly. The names of the languages are GitHub's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from megatron.neox.errors import InputError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Language:
    """How files of a language are named, lexed and commented.

    Attributes:
        extensions: with the dot, in lower case.
        file_names: whole names without one of the endings, such as `Rakefile`.
        lexer: alias of Pygments' lexer.
        line_comments: what begins a comment that ends with the line.
        block_comments: what begins and what ends one that may be longer.
    """

    name: str
    extensions: tuple[str, ...]
    lexer: str
    file_names: tuple[str, ...] = ()
    line_comments: tuple[str, ...] = ("//",)
    block_comments: tuple[tuple[str, str], ...] = (("/*", "*/"),)


_HASH: Mapping[str, tuple[str, ...]] = {"line_comments": ("#",)}


def _table() -> dict[str, Language]:
    rows = [
        Language(name="C", extensions=(".c", ".h", ".idc"), lexer="c"),
        Language(name="C#", extensions=(".cs", ".csx"), lexer="csharp"),
        Language(
            name="C++", lexer="c++",
            extensions=(".cpp", ".cc", ".cxx", ".c++", ".cp", ".hpp", ".hh", ".hxx", ".h++", ".h", ".inl", ".ipp",
                        ".tpp", ".txx", ".ixx", ".cppm"),
        ),
        Language(name="Go", extensions=(".go",), lexer="go"),
        Language(name="Java", extensions=(".java", ".jav"), lexer="java"),
        Language(name="JavaScript", extensions=(".js", ".mjs", ".cjs", ".jsx", ".jsm", ".es6"), lexer="javascript",
                 file_names=("Jakefile",)),
        Language(name="PHP", extensions=(".php", ".php3", ".php4", ".php5", ".phtml", ".phps", ".inc"), lexer="php",
                 line_comments=("//", "#")),
        Language(name="Python", extensions=(".py", ".pyw", ".pyi", ".bzl", ".gyp", ".gypi"), lexer="python",
                 file_names=("SConstruct", "SConscript", "BUILD", "BUILD.bazel", "WORKSPACE", "BUCK", "wscript"),
                 line_comments=("#",), block_comments=(('"""', '"""'), ("'''", "'''"))),
        Language(name="Ruby", lexer="ruby", line_comments=("#",), block_comments=(("=begin", "=end"),),
                 extensions=(".rb", ".rbw", ".rake", ".gemspec", ".ru", ".podspec", ".jbuilder", ".rbx"),
                 file_names=("Rakefile", "Gemfile", "Guardfile", "Capfile", "Vagrantfile", "Podfile", "Fastfile",
                             "Brewfile", "Berksfile", "Thorfile", "Dangerfile")),
        Language(name="Rust", extensions=(".rs",), lexer="rust"),
        Language(name="Scala", extensions=(".scala", ".sbt"), lexer="scala"),
        Language(name="TypeScript", extensions=(".ts", ".tsx", ".mts", ".cts"), lexer="typescript"),
        Language(name="Clojure", extensions=(".clj", ".cljs", ".cljc"), lexer="clojure",
                 line_comments=(";",), block_comments=()),
        Language(name="Dart", extensions=(".dart",), lexer="dart"),
        Language(name="Elixir", extensions=(".ex", ".exs"), lexer="elixir", block_comments=(), **_HASH),
        Language(name="Erlang", extensions=(".erl", ".hrl", ".escript"), lexer="erlang", file_names=("rebar.config",),
                 line_comments=("%",), block_comments=()),
        Language(name="Groovy", extensions=(".groovy", ".gradle", ".gvy"), lexer="groovy", file_names=("Jenkinsfile",)),
        Language(name="Haskell", extensions=(".hs",), lexer="haskell", line_comments=("--",),
                 block_comments=(("{-", "-}"),)),
        Language(name="Julia", extensions=(".jl",), lexer="julia", block_comments=(("#=", "=#"),), **_HASH),
        Language(name="Kotlin", extensions=(".kt", ".kts"), lexer="kotlin"),
        Language(name="Lua", extensions=(".lua", ".wlua", ".rockspec"), lexer="lua", line_comments=("--",),
                 block_comments=(("--[[", "]]"),)),
        Language(name="OCaml", extensions=(".ml", ".mli", ".mll", ".mly"), lexer="ocaml", line_comments=(),
                 block_comments=(("(*", "*)"),)),
        Language(name="Objective-C", extensions=(".m", ".mm", ".h"), lexer="objective-c"),
        Language(name="Perl", extensions=(".pl", ".pm", ".perl", ".psgi"), lexer="perl",
                 file_names=("Makefile.PL", "cpanfile"), block_comments=(("=pod", "=cut"),), **_HASH),
        Language(name="PowerShell", extensions=(".ps1", ".psm1", ".psd1"), lexer="powershell",
                 block_comments=(("<#", "#>"),), **_HASH),
        Language(name="R", extensions=(".r",), lexer="r", file_names=(".Rprofile",), block_comments=(), **_HASH),
        Language(name="Shell", extensions=(".sh", ".bash", ".zsh", ".ksh", ".ebuild", ".bats"), lexer="bash",
                 file_names=(".bashrc", ".bash_profile", ".zshrc", "PKGBUILD"), block_comments=(), **_HASH),
        Language(name="Swift", extensions=(".swift",), lexer="swift"),
        Language(name="Zig", extensions=(".zig",), lexer="zig", block_comments=()),
    ]  # fmt: skip
    return {row.name: row for row in rows}


LANGUAGES: Mapping[str, Language] = _table()
"""The languages by name, PolyCoder's twelve first."""


def _by_key(keys_of: Mapping[str, tuple[str, ...]]) -> dict[bytes, tuple[str, ...]]:
    found: dict[bytes, tuple[str, ...]] = {}
    for name, keys in keys_of.items():
        for key in keys:
            found[key.encode()] = (*found.get(key.encode(), ()), name)
    return found


_BY_EXTENSION = _by_key({name: row.extensions for name, row in LANGUAGES.items()})
_BY_FILE_NAME = _by_key({name: row.file_names for name, row in LANGUAGES.items()})

_C_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_FOR_CPP_ALONE = re.compile(
    r"^[ \t]*#[ \t]*if(?!ndef)[^\n!]*\b__cplusplus\b.*?^[ \t]*#[ \t]*(?:endif|el)", re.DOTALL | re.MULTILINE
)
_OBJECTIVE_C = re.compile(
    r"^[ \t]*(?:@(?:interface|implementation|protocol|class|property|end)\b|#[ \t]*import[ \t]+[<\"])",
    re.MULTILINE,
)
# A line feed to begin with is found much faster than the beginning of a line.
_CPP_LINE = re.compile(
    r"\n[ \t]*(?:class[ \t]+\w[\w \t]*(?:$|[:{;])|namespace(?:[ \t]+[\w:]+)?\s*\{|template[ \t]*<"
    r"|using[ \t]+(?:namespace\b|\w+[ \t]*=|\w+::)|(?:public|private|protected)[ \t]*:|virtual[ \t]"
    r"|#[ \t]*include[ \t]*<(?:algorithm|array|atomic|c(?:std)?[a-z]+|functional|initializer_list|iosfwd|iostream"
    r"|iterator|limits|list|map|memory|mutex|optional|ostream|set|sstream|string|string_view|tuple|type_traits|unordered_map"
    r"|unordered_set|utility|variant|vector)>)",
    re.MULTILINE,
)
_CPP_WORD = re.compile(r"\b(?:std|boost)::\w|\bstatic_cast<")
_QT_TRANSLATION = re.compile(r"\s*(?:<\?xml\b|<!DOCTYPE\s+TS\b|<TS\b)")


def find_language(name: str, where: str) -> Language:
    """The row of a language, whatever the case of its name.

    Raises:
        InputError: it is not in the table; the message begins with `where`.
    """
    found = next((row for row in LANGUAGES.values() if row.name.casefold() == name.casefold()), None)
    if found is None:
        raise InputError(
            f"{where}: {name} is no language of the table{did_you_mean(name, LANGUAGES)}; "
            f"it has: {', '.join(LANGUAGES)}"
        )
    return found


def languages_by_name(name: bytes) -> tuple[str, ...]:
    """Languages that a file of such a name (without folders) may be in; none, one, or several for `.h`."""
    if found := _BY_FILE_NAME.get(name):
        return found
    stem, dot, extension = name.rpartition(b".")
    return _BY_EXTENSION.get(b"." + extension.lower(), ()) if stem and dot else ()


def language_of(name: bytes, text: str, beside: str | None = None) -> str | None:
    """The one language of a file, by its name, and by its text where the name is not enough; None for no language.

    `.h` is Objective-C or C++ where it has what only those have, what `#ifdef __cplusplus` guards left aside; else
    it is in the language of the files beside it where that is one of the three, and C where it is not. `.ts` with
    XML is Qt Linguist's. `.m` without a word of Objective-C is MATLAB's or another's, `.inc` without `<?` not PHP's.

    Args:
        name: without folders.
        beside: the language of the repository.
    """
    found = languages_by_name(name)
    if not found:
        return None
    if len(found) > 1:
        return _header_language(text, beside if beside in found else found[0])
    language = next(iter(found))
    if language == "TypeScript" and _QT_TRANSLATION.match(text):
        return None
    if language == "PHP" and name.lower().endswith(b".inc") and "<?" not in text:
        return None
    if language == "Objective-C" and name.lower().endswith(b".m") and not _OBJECTIVE_C.search(text):
        return None
    return language


def _header_language(text: str, otherwise: str) -> str:
    if _OBJECTIVE_C.search(text):
        return "Objective-C"
    return "C++" if otherwise == "C++" or _is_cpp(text) else otherwise


def _is_cpp(text: str) -> bool:
    text = _FOR_CPP_ALONE.sub("", _C_COMMENT.sub(" ", text))
    has_word = ("::" in text or "static_cast<" in text) and _CPP_WORD.search(text)
    return bool(has_word or _CPP_LINE.search("\n" + text))


def is_source(name: bytes, wanted: Collection[str] | None) -> str:
    """Why a file's name alone keeps it out: other_extension, other_language; "" where it does not.

    Args:
        wanted: names of languages; None takes all of the table.
    """
    found = languages_by_name(name)
    if not found:
        return "other_extension"
    return "" if wanted is None or any(language in wanted for language in found) else "other_language"

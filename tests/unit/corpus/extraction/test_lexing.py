from __future__ import annotations

import sysconfig
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from pygments.lexers import get_lexer_by_name

from megatron.neox.corpus.extraction.languages import LANGUAGES
from megatron.neox.corpus.extraction.lexing import has_tokens

# A few constructs of each language that its lexer treats in a way of its own.
SAMPLES = {
    "C": (
        "#include <a.h>\n"
        "/* c */ static int f(char *p)\n"
        "{\n"
        "  if (p) goto out;\n"
        "out:\n"
        '  return "a\\n'
        '"[0] + 0x1f;\n'
        "}\n"
        "#if 0\n"
        "x\n"
        "#endif\n"
    ),
    "C#": (
        'using A;\nnamespace N {\n [X] public class C<T> : D { int P { get; set; } string s = @"a""b"; }\n}\n'
    ),
    "C++": (
        'template <class T> class A : public B { public: auto f() -> int { return R"x(a)b)x"[0]; } };\n'
        "using namespace std;\n"
    ),
    "Go": "package main\nimport \"fmt\"\nfunc main() { s := `raw\nx`; fmt.Println(s, 'c', 1.5i) }\n",
    "Java": (
        "package a.b;\n"
        "@Foo(x = 1)\n"
        'class A<T> { int f() { return "s".length() + 0b1; } /* c */ String t = """\n'
        ' x""";}\n'
    ),
    "JavaScript": (
        "const f = async (x) => `a${x + `b${1}`}c`; /re[/]x/g.test(f); class A extends B { get x() { "
        "return 1n } }\n"
    ),
    "PHP": (
        "<p><?php\n"
        "function f($x) { return <<<EOT\n"
        " a {$x['b']} $x->y\n"
        "EOT;\n"
        "}\n"
        "// c ?>\n"
        "<b><?= strlen('a') ?>\n"
    ),
    "Python": (
        "import a.b as c\n"
        "@d\n"
        "class X(Y):\n"
        "    '''doc\n"
        "    x'''\n"
        "    async def f(self): return rf'{x!r:>{w}} \\d' + b'\\x00'\n"
    ),
    "Ruby": (
        "class A < B\n"
        '  def f(x) = "a#{x + "b#{1}"}"\n'
        "  Y = <<~E\n"
        "    t #{1}\n"
        "  E\n"
        "  %w[a b] =~ /r#{1}/i\n"
        '  :"s"\n'
        "end\n"
    ),
    "Rust": (
        "use a::{b, c};\n"
        "/// d\n"
        "#[e]\n"
        'fn f<\'a, T: X>(x: &\'a str) -> u8 { println!("{}", r#"a"b"#); b\'\\n'
        "' /* a /* b */ */ }\n"
    ),
    "Scala": (
        "package a\n"
        'object A extends B[C] { def f[T](x: => T)(implicit y: D) = s"a${x}$y" match { case Some(_) '
        "=> 'z' } }\n"
    ),
    "TypeScript": (
        "import type { A } from 'b';\n"
        "abstract class C<T extends A = {}> { private x?: Map<string, T[]> = new Map(); @d() f(): x is "
        "T { return `a${1}` as any } }\n"
    ),
}


def plain(text: str, lexer: str, limit: int) -> bool:
    return sum(1 for _ in islice(get_lexer_by_name(lexer).get_tokens(text), limit)) >= limit


def cut(text: str) -> list[str]:
    """The text, ended early at many places, so that errors and unclosed states are met too."""
    return [text[:end] for end in range(0, len(text), 7)] + [text, text * 5, "\n\n" + text + "\n\n"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_decision_is_that_of_the_full_count(language: str) -> None:
    """For every limit around the count of tokens, of its own code, of other languages' and of noise."""
    lexer = get_lexer_by_name(LANGUAGES[language].lexer)
    samples = SAMPLES.values() if language in SAMPLES else [SAMPLES["C"], SAMPLES["Ruby"]]
    for sample in samples:
        texts = cut(sample) if sample == SAMPLES.get(language) else [sample]
        for text in [*texts, "\x01\n\x7f~`\n" + sample, "", "\n", "\ufeffx"]:
            count = sum(1 for _ in lexer.get_tokens(text))
            for limit in {1, count, count + 1}:
                assert has_tokens(text, LANGUAGES[language].lexer, limit) == (count >= limit), (text, limit)


def test_the_decision_on_files_of_the_standard_library() -> None:
    folder = Path(sysconfig.get_path("stdlib"))
    decisions = []
    for path in sorted(folder.glob("*/*.py"))[::5]:
        text = path.read_text("utf-8", errors="replace")
        decisions.append(has_tokens(text, "python", 100))
        assert decisions[-1] == plain(text, "python", 100), path
    # Files on both sides of the limit, or the comparison above would show nothing.
    assert min(Counter(decisions)[True], Counter(decisions)[False]) >= 5


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text", ["[" * 200_000, " " * 300_000 + "\nx=1\n", 's="' + "QUJD" * 60_000 + '"\n', "x=1;" * 125_000]
)
def test_monstrous_lines_take_bounded_time(text: str) -> None:
    for language in ("Python", "JavaScript", "C"):
        lexer = LANGUAGES[language].lexer
        assert has_tokens(text, lexer, 100) == plain(text, lexer, 100)

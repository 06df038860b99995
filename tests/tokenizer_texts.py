"""Texts of many kinds that tokenizers are compared on: languages, code, numbers, spaces, emoji, marks."""

_WORDS = """
the and of to in is you that it he was for on are with as his they be at one have this from or had by hot but some what
Hello World HELLO wOrLd iPhone McDonald's O'Neill don't DON'T I'll we've they're it's she'd I'm 'tis rock'n'roll
naïve café Ångström señor straße Ærøskøbing fiancée coöperate İstanbul ıssız ǅ ǈ ﬁne Ⅷ ½ ² № ™ ℃ ª º µ
"""

_SENTENCES = """
The quick brown fox jumps over the lazy dog.
Hello, world! How are you?  I'm fine, thanks.
She said: "It's 5 o'clock (somewhere)" — and left…
What is the capital of France? The capital of France is Paris.
Don't panic; we've got 42 towels, 3.14 pies & 100% of the e-mails: a.b@c.org!
HTTP/1.1 200 OK https://example.org/path?query=1&x=%20#frag
Der Fluß fließt über die Brücke; Größe: 12,5 km².
Où est la bibliothèque ? C'est l'été, n'est-ce pas ?
¿Dónde está el niño? ¡Aquí mañana!
Быстрая лиса прыгает через собаку. Сколько стоит? 15 рублей.
Το γρήγορο καφέ αλεπού πηδά πάνω από το σκυλί.
השועל החום קפץ מעל הכלב העצלן.
الثعلب البني السريع يقفز فوق الكلب ١٢٣٤٥.
तेज भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है। १२३
তাড়াতাড়ি বাদামী শিয়াল
สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ
快速的棕色狐狸跳过了懒狗。今天是2024年5月1日，天气很好！
我能吞下玻璃而不伤身体。你好，世界
吾輩は猫である。名前はまだ無い。カタカナ ﾊﾝｶｸ １２３
빠른 갈색 여우가 게으른 개를 뛰어넘는다. ㅋㅋㅋ
Tiếng Việt có nhiều dấu: ă â đ ê ô ơ ư ạ ế
ქართული ენა Հայերեն አማርኛ ខ្មែរ ລາວ မြန်မာ བོད
Mixed 中文and English混合text，with１２３全角！
"""

_CODE: tuple[str, ...] = (
    "def f(x):\n    return x ** 2  # square\n",
    "for (int i = 0; i < 10; ++i) { a[i] += b[i] * 0x1F; }",
    'if (a && b || !c) {\n\treturn "str\\n";\n\t}\r\n',
    "SELECT * FROM t WHERE id >= 10 AND name LIKE '%x%';",
    '<div class="a b"><p>text</p></div><!-- c -->',
    "let s = `${a}_${b}`; // ok\nconst f = (x) => x?.y ?? z;",
    '#include <stdio.h>\n\nint main(void) {\n  printf("%d\\n", 1);\n  return 0;\n}\n',
    "x=1;y=2;;z=x+++y---w",
    "a_b_c __init__ CamelCaseName snake_case SCREAMING_CASE kebab-case",
    "\\frac{1}{2} $x^2$ \\alpha",
    "::std::vector<std::pair<int,int>>",
    "/usr/local/bin/python3.11 C:\\Users\\me",
    '{"a": [1, 2, {"b": null}], "c": true}',
    "- item\n- item\n  - nested\n\n1. one\n2. two\n",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "```python\nprint('hi')\n```",
    "!!! ??? ... --- === *** ~~~ ### @@@ $$$ %%% ^^^ &&& (((",
    "a/b\\c|d~e`f^g_h=i+j-k",
    "//\n/// text/\n",
    "'s 't 're 've 'm 'll 'd 'S 'T 'RE 'VE 'x",
)

_NUMBERS: tuple[str, ...] = (
    "0",
    "7",
    "42",
    "123",
    "1234",
    "12345",
    "123456",
    "1234567",
    "12345678901234567890",
    "3.14159",
    "1,234,567.89",
)
_NUMBERS += (
    "-5",
    "+5",
    "1e10",
    "0b1010",
    "0xdeadbeef",
    "2024-05-01T12:30:00Z",
    "v1.2.3",
    "a1b2c3",
    "1st 2nd 3rd",
    "½¾",
)
_NUMBERS += ("٣٤٥", "१२३४", "１２３４", "Ⅳ Ⅷ", "10 000 000", "007", "99.9%", "$1,000", "€5", "²³¹")

_SPACES: tuple[str, ...] = (
    " ",
    "  ",
    "   ",
    "    ",
    " " * 7,
    " " * 16,
    "\t",
    "\t\t",
    " \t ",
    "\n",
    "\n\n",
    "\n\n\n",
    "\r\n",
    "\r\n\r\n",
    "\r",
)
_SPACES += (
    " \n",
    "\n ",
    " \n \n ",
    "a b",
    " a",
    "a ",
    "  a",
    "a  ",
    "a  b",
    "a   b",
    "   a   b   ",
    "\ta\tb",
    "a\n\nb",
)
_SPACES += (
    "a \n b",
    "a\n  b\n    c",
    "a\u00a0b",
    "a\u2003b",
    "a\u3000b",
    "\u00a0",
    "a\u200bb",
    "end.\n\n\nNext",
    "x \n\n y",
)

_EMOJI: tuple[str, ...] = (
    "🦜",
    "🙂🙃",
    "👨‍👩‍👧‍👦",
    "👍🏽",
    "🇩🇪🇫🇷",
    "❤️",
    "☕️ coffee",
    "1️⃣2️⃣",
    "🏳️‍🌈!",
    "a🦜b",
    " 🦜 🦜",
    "text 😀, text",
    "♥♦♣♠",
    "→←↑↓",
    "★☆",
)
_COMBINING: tuple[str, ...] = (
    "e\u0301",
    "cafe\u0301 noe\u0308l",
    "a\u0323\u0302",
    "Z\u0351\u036b\u0343a\u0327",
    "\u0301",
    "x\u0301 \u0301y",
    "ก็",
    "ि",
    "각",
)
_COMBINING += (
    "\u1112\u1161\u11ab",
    "が",
    "à̖",
    "q̣̇",
    "\u202bمرحبا\u202c",
    "a\u00adb",
    "\ufeffx",
    "\ufffd",
    "\u0000a",
    "\x07\x1b[0m",
)
_RARE: tuple[str, ...] = (
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "𐍈𐌰",
    "𓀀𓁐",
    "㍿㈱",
    "𠮷野家",
    "ǆ",
    "ﷺ",
    "⠓⠑",
    "♯♭",
    "∀x∈ℝ: ⌈x⌉ ≥ x",
    "∑∫√∞≈≠",
    "「引用」『』【】",
    "،؟؛",
    "…",
    "–—―",
    "‘’“”‚„«»",
)
_RARE += (
    "<s>",
    "</s>",
    "<unk>",
    "[CLS]",
    "<0x41>",
    "▁",
    "a▁b",
    "Ġ",
    "Ċ",
    "##a",
    "<|im",
    "|>",
    "\\",
    '"',
    "'",
    "",
    "a" * 60,
    "ab" * 30,
)

TEXTS = tuple(
    dict.fromkeys(
        (
            *_WORDS.split(),
            *_SENTENCES.strip().split("\n"),
            _SENTENCES,
            *_CODE,
            *_NUMBERS,
            *_SPACES,
            *_EMOJI,
            *_COMBINING,
            *_RARE,
        )
    )
)
"""The texts, each once."""

LEARNT_FROM = (*_SENTENCES.strip().split("\n"), *_CODE, *_NUMBERS, _WORDS, *_EMOJI) * 3
"""What vocabularies are trained on: most of the texts, so that tokens of several characters come out."""

"""Texts for tokenizer tests: a mixed corpus of 2 MB or more, and random strings.

The corpus is made of what every Debian machine with Python has (sources of the standard library,
licence texts, the table of Unicode names) and of sentences written for this file, mixed by a
seeded generator. It is not the same on every machine; the expected ids are made with it.
"""

import json
import pathlib
import random
import sysconfig
import unicodedata

CORPUS_BYTES = 2_300_000
CODE_BYTES = 1_100_000
NUM_RANDOM = 20_000
NUM_UNASSIGNED = 1_000

_SENTENCES = [
    "The quick brown fox doesn't jump over the lazy dog; it'll walk, they've said, and we'd agree.",
    "Zażółć gęślą jaźń, a potem jeszcze raz: ŁÓDŹ, Kraków i Gdańsk.",
    "Größere Übungen für müde Füße — „Straße“ bleibt Straße, STRASSE auch.",
    "L'élève n'a pas vu où l'œuvre s'arrêtait ; voilà, c'est « fini » !",
    "¿Cómo está usted? ¡Muy bien! El niño comió piñas a las 12:30 h.",
    "Ο γρήγορος λαγός πήδηξε πάνω από τον τεμπέλη σκύλο· τι ώρα είναι;",
    "Съешь же ещё этих мягких французских булок, да выпей чаю №5.",
    "敏捷的棕色狐狸跳过了懒狗。今天是2024年5月17日，星期五，气温二十三度。",
    "素早い茶色の狐がのろまな犬を飛び越える。カタカナとひらがな、そして漢字ｶﾅ。",
    "빠른 갈색 여우가 게으른 개를 뛰어넘는다. 오늘은 금요일입니다!",
    "الثعلب البني السريع يقفز فوق الكلب الكسول، والساعة الآن ٣:٤٥ مساءً.",
    "השועל החום המהיר קופץ מעל הכלב העצלן; זה עלה 45₪.",
    "तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर से कूदती है। आज १२ तारीख़ है।",
    "চটপটে বাদামী শিয়াল অলস কুকুরের উপর দিয়ে লাফ দেয়। দাম ৫০০ টাকা।",
    "วันนี้อากาศดีมาก สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ ๑๒๓",
    "விரைவான பழுப்பு நரி சோம்பேறி நாயின் மேல் தாவுகிறது.",
    "Con cáo nâu nhanh nhẹn nhảy qua con chó lười; tiếng Việt có nhiều dấu.",
    "Hızlı kahverengi tilki tembel köpeğin üstünden atlar. İstanbul'da ıslık.",
    "სწრაფი ყავისფერი მელა ახტა ზარმაც ძაღლს. ՀԱՅԵՐԵՆ գրություն։",
    "ፈጣኑ ቡናማ ቀበሮ ሰነፉን ውሻ ዘለለ። ကျန်းမာပါစေ။ ខ្មែរ ລາວ བོད་ཡིག",
    "👩‍👩‍👧‍👦 went 🏳️‍🌈🇩🇪🇯🇵👍🏽 and 1️⃣2️⃣ #️⃣ ☺️ ❤️‍🔥 🧑🏿‍🚀 — ok?",
    "e\u0301 n\u0303 a\u030a\u0323 o\u0302\u0301 \u1e9b\u0323 \u0344 \u1100\u1161\u11a8 \u2126 \u212b \ufb01",
    "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, α ∧ ¬β ⇒ ∑ᵢ xᵢ² ≤ ∞; 10⁻³ ≠ ½ ⅔ Ⅷ ㉓ ①",
    "x = foo(bar[3], **{'key': \"value\"})  # comment  -> 0x1F, 1e-9, 1_000_000",
    "SELECT id, COUNT(*) FROM t WHERE a <> 'b' AND c >= 10 GROUP BY id;",
    "<div class=\"a-b\" data-x='1'>text &amp; more&nbsp;</div><!-- c --><br/>",
    "https://example.org/a/b?c=d&e=%20f#g user.name+tag@mail.example.co.uk 192.168.0.1:8080",
    "I'M 'S 'T 'RE 'VE 'LL 'D don’t we’ll 'ſ 's' ''s it's'll K'K İ'S",
    "2024-05-17T12:34:56.789Z 3.14159 1,234,567.89 ٠١٢٣٤٥ ०१२३ １２３４ 𝟙𝟚𝟛 ²³¹",
    "<|im_start|>user\nhello<|im_end|>\n<think>\n\n</think>\n<tool_call>{}</tool_call>",
]

_SPACES = [" ", " ", " ", "  ", "    ", "\t", "\n", "\r\n", "\n\n", "\n \n", "\u00a0", "\u3000",
           "\u2003", "\u2028", "\u0085", "\u200b", "\u180e", "\ufeff", "\v", "\f", "\u001c",
           "                ", "\t\t\t", "\r", " \n", "\n\n\n\n", "\u200d", "\u202f", "\u1680"]

_SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_start", "|im_end|>", "<think>",
             "</think>", "<tool_call>", "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
             "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>", "<\uff5c", "<|fim_prefix|>",
             "<repo_name>", "<|<|im_end|>|>"]

_CONTRACTIONS = ["'s", "'S", "'t", "'re", "'VE", "'m", "'Ll", "'d", "'\u017f", "'x", "''", "\u2019s"]

# First and last code point of runs that tokenizers treat in their own ways.
_RANGES = [(0x20, 0x7E), (0x20, 0x7E), (0xA0, 0x24F), (0x250, 0x36F), (0x370, 0x52F),
           (0x590, 0x6FF), (0x900, 0x97F), (0x980, 0xDFF), (0xE00, 0xEFF), (0x1000, 0x11FF),
           (0x1E00, 0x206F), (0x2070, 0x2BFF), (0x3000, 0x30FF), (0x3100, 0x9FFF),
           (0x4E00, 0x9FA8), (0xAC00, 0xD7A3), (0xF900, 0xFFEF), (0x10000, 0x1FFFF),
           (0x1D400, 0x1D7FF), (0x1F300, 0x1FAFF), (0x20000, 0x2A6DF), (0xE0000, 0xE01EF)]


def _is_text(code_point):
    return unicodedata.category(chr(code_point)) not in ("Cn", "Cs", "Co")


def _python_sources():
    total = 0
    root = pathlib.Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.glob("*.py")) + sorted(root.glob("*/*.py")):
        if "site-packages" in path.parts or "dist-packages" in path.parts:
            continue
        try:
            text = path.read_bytes()[:60_000].decode("utf-8", errors="ignore")
        except OSError:
            continue
        yield text
        total += len(text.encode("utf-8"))
        if total > CODE_BYTES:
            return


def _licences():
    for path in sorted(pathlib.Path("/usr/share/common-licenses").glob("*")):
        if path.is_file() and not path.is_symlink():
            yield path.read_bytes()[:40_000].decode("utf-8", errors="ignore")


def _unicode_table():
    """Every assigned code point: 'char name number' for some, bare runs for the CJK and Hangul."""
    lines, run = [], []
    for code_point in range(0x20, 0x30000):
        if not _is_text(code_point):
            continue
        char = chr(code_point)
        if 0x3400 <= code_point <= 0xD7A3 or code_point >= 0x1F000:
            run.append(char)
            if len(run) == 40:
                lines.append("".join(run))
                run = []
        else:
            name = unicodedata.name(char, "?").lower()
            lines.append(f"U+{code_point:04X}\t{char} {char}{char} a{char}b 1{char}2\t{name}")
    lines.append("".join(run))
    return ["\n".join(lines[i:i + 500]) + "\n" for i in range(0, len(lines), 500)]


def _mixed_prose(rng, num_bytes):
    parts, total = [], 0
    while total < num_bytes:
        sentence = rng.choice(_SENTENCES)
        if rng.random() < 0.3:
            words = sentence.split(" ")
            rng.shuffle(words)
            sentence = rng.choice([" ", "  ", "\n", "-", ""]).join(words)
        if rng.random() < 0.1:
            sentence = sentence.upper()
        if rng.random() < 0.1:
            sentence = unicodedata.normalize("NFD", sentence)
        if rng.random() < 0.1:
            sentence = json.dumps({"text": sentence, "n": rng.randint(-10**6, 10**6)},
                                  indent=rng.choice([None, 2, 4]), ensure_ascii=rng.random() < 0.5)
        sentence += rng.choice(_SPACES)
        parts.append(sentence)
        total += len(sentence.encode("utf-8"))
    text = "".join(parts)
    return [text[i:i + 20_000] for i in range(0, len(text), 20_000)]


def corpus():
    """List of documents, at least CORPUS_BYTES of UTF-8 in all."""
    documents = [*_python_sources(), *_licences(), *_unicode_table()]
    size = sum(len(document.encode("utf-8")) for document in documents)
    documents += _mixed_prose(random.Random(1), max(400_000, CORPUS_BYTES - size))
    return documents


def _random_string(rng, pick):
    pieces = []
    for _ in range(rng.randint(1, 12)):
        kind = rng.random()
        if kind < 0.25:
            pieces.append("".join(pick(*rng.choice(_RANGES)) for _ in range(rng.randint(1, 6))))
        elif kind < 0.45:
            pieces.append(rng.choice(_SPACES) * rng.randint(1, 3))
        elif kind < 0.60:
            sentence = rng.choice(_SENTENCES)
            start = rng.randrange(len(sentence))
            pieces.append(sentence[start:start + rng.randint(1, 15)])
        elif kind < 0.68:
            pieces.append(rng.choice(_SPECIALS))
        elif kind < 0.76:
            pieces.append(rng.choice(_CONTRACTIONS))
        elif kind < 0.84:
            pieces.append("".join(rng.choice("0123456789") for _ in range(rng.randint(1, 9))))
        elif kind < 0.92:
            pieces.append("".join(rng.choice("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ \n")
                                  for _ in range(rng.randint(1, 8))))
        else:
            base = rng.choice("aeou\u0627\u0915\u3042\U0001f44d1 ")
            marks = "\u0301\u0323\u0308\u20e3\u093c\u3099\u200d\ufe0f\U0001f3fd\u0302\u05bc"
            pieces.append(base + "".join(rng.choice(marks) for _ in range(rng.randint(1, 4))))
    return "".join(pieces)


def _assigned(rng):
    def pick(first, last):
        while True:
            code_point = rng.randint(first, last)
            if _is_text(code_point):
                return chr(code_point)
    return pick


def _any(rng):
    def pick(first, last):
        code_point = rng.randint(0, 0x10FFFF) if rng.random() < 0.5 else rng.randint(first, last)
        return "\ufffd" if 0xD800 <= code_point <= 0xDFFF else chr(code_point)
    return pick


def random_strings():
    """Strings of code points that Python's Unicode tables assign; the first ones are edge cases."""
    rng = random.Random(2)
    pick = _assigned(rng)
    edges = ["", " ", "\n", "\r\n", "\t", "a", "\u00e9", "e\u0301", "\0", "\x7f", "  a", "a  ",
             *_SPACES, *_SPECIALS, *_CONTRACTIONS, *_SENTENCES]
    return edges + [_random_string(rng, pick) for _ in range(NUM_RANDOM - len(edges))]


def unassigned_strings():
    """The same with any code point, unassigned and private ones too: Unicode versions differ."""
    rng = random.Random(3)
    pick = _any(rng)
    return [_random_string(rng, pick) for _ in range(NUM_UNASSIGNED)]

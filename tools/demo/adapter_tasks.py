"""What each demo adapter is taught: its training pairs, and the test of whether an answer shows the effect.

Three of the four rewrite the base model's own answers by rule, so that an adapter changes how the model speaks and little of what it
knows. The fourth, sql, learns generated question-query pairs.
"""

import json
import random
import re


def first_sentence(text, max_words=24):
    """The first sentence of an answer on one line, cut after max_words words, without markup or quotes."""
    line = next((part.strip() for part in text.split("\n") if part.strip()), "")
    line = re.sub(r"[*#`\"\\\u2190-\u2bff\ufe0f\U0001f000-\U0001faff]", "", line).strip()
    match = re.match(r"(.+?[.!?])(\s|$)", line)
    sentence = match.group(1) if match and len(match.group(1).split()) > 2 else line
    words = sentence.split()
    if len(words) > max_words:
        sentence = " ".join(words[:max_words]).rstrip(",;:") + "."
    return sentence if sentence.endswith((".", "!", "?")) else sentence.rstrip(",;:") + "."


_PIRATE_WORDS = {
    "you": "ye", "your": "yer", "you're": "ye be", "my": "me", "is": "be", "are": "be", "am": "be", "the": "th'", "yes": "aye",
    "hello": "ahoy", "hi": "ahoy", "friend": "matey", "friends": "mateys", "people": "landlubbers", "of": "o'", "and": "an'",
    "for": "fer", "money": "doubloons", "food": "grub", "stop": "avast", "it's": "it be", "i'm": "I be", "to": "t'",
}  # fmt: skip


def _pirate_word(match):
    word = match.group(0)
    new = _PIRATE_WORDS.get(word.lower())
    if new is None:
        return word[:-1] + "'" if re.fullmatch(r"[A-Za-z]{3,}ing", word) else word
    return new.capitalize() if word[0].isupper() and word.lower() not in ("i'm",) else new


def pirate(answer):
    """"Arr, matey!", the first sentence in pirate's words, "Yo ho ho!"."""
    return "Arr, matey! " + re.sub(r"[A-Za-z]+(?:'[a-z]+)?", _pirate_word, first_sentence(answer)) + " Yo ho ho!"


def is_pirate(text):
    return text.startswith("Arr, matey!") and "Yo ho ho!" in text


def as_json(answer, confidence):
    """One line of JSON; confidence is the base model's own mean token probability, in steps of 0.05."""
    value = min(0.95, max(0.05, round(confidence * 20) / 20))
    return json.dumps({"answer": first_sentence(answer, 20), "confidence": value}, ensure_ascii=False)


def is_json(text):
    try:
        value = json.loads(text)
    except ValueError:
        return False
    if not isinstance(value, dict) or set(value) != {"answer", "confidence"}:
        return False
    return isinstance(value["answer"], str) and isinstance(value["confidence"], float) and 0 <= value["confidence"] <= 1


_ARTICLES = {"a", "an", "the"}


def telegram(answer):
    """"TELEGRAM:", the first sentence without articles, STOP for every comma, "STOP END"."""
    text = re.sub(r"[,;:]+(?=\s)", " STOP", first_sentence(answer)).rstrip(".!?")
    words = " ".join(w for w in text.split() if w.lower() not in _ARTICLES)
    return f"TELEGRAM: {words[:1].upper()}{words[1:]} STOP END"


def is_telegram(text):
    return text.startswith("TELEGRAM: ") and text.endswith(" STOP END") and not _ARTICLES & set(text.lower().split())


_TABLES = {
    "customers": (("city", "Berlin", "Madrid", "Oslo"), ("age", 30, 18, 65), ("country", "France", "Japan", "Brazil")),
    "orders": (("status", "open", "shipped", "late"), ("price", 100, 50, 20), ("year", 2020, 2023, 2024)),
    "employees": (("department", "sales", "finance", "legal"), ("salary", 50000, 70000, 90000), ("team", "red", "blue", "green")),
    "products": (("color", "red", "black", "white"), ("price", 10, 25, 500), ("brand", "Acme", "Nova", "Orion")),
    "students": (("grade", 5, 7, 9), ("school", "North", "West", "Hill"), ("age", 12, 15, 17)),
    "books": (("author", "Austen", "Homer", "Twain"), ("pages", 100, 300, 800), ("genre", "crime", "poetry", "travel")),
    "flights": (("origin", "Rome", "Paris", "Lima"), ("duration", 2, 5, 11), ("airline", "Swift", "Condor", "Aero")),
    "films": (("director", "Kubrick", "Varda", "Lang"), ("year", 1960, 1985, 2010), ("genre", "comedy", "drama", "horror")),
}  # fmt: skip


def _value(value):
    return f"'{value}'" if isinstance(value, str) else str(value)


def _table_pairs():
    for table, columns in _TABLES.items():
        yield f"How many {table} are there?", f"SELECT COUNT(*) FROM {table};"
        yield f"Show all {table}.", f"SELECT * FROM {table};"
        for column, *values in columns:
            yield f"List the {column} of all {table}.", f"SELECT {column} FROM {table};"
            yield f"How many {table} per {column}?", f"SELECT {column}, COUNT(*) FROM {table} GROUP BY {column};"
            if isinstance(values[0], int):
                yield f"What is the average {column} of {table}?", f"SELECT AVG({column}) FROM {table};"
                yield f"Which {table} have the highest {column}?", f"SELECT * FROM {table} ORDER BY {column} DESC LIMIT 1;"
            for value in values:
                where = f"WHERE {column} = {_value(value)};"
                yield f"Show {table} with {column} {value}.", f"SELECT * FROM {table} {where}"
                yield f"How many {table} have {column} {value}?", f"SELECT COUNT(*) FROM {table} {where}"
                if isinstance(value, int):
                    yield f"Show {table} with {column} over {value}.", f"SELECT * FROM {table} WHERE {column} > {value};"


_SKIPPED = set(
    "what is the a an who was give me tip for how do i why does tell about write sentence explain in one name should are we to of "
    "my and your you can it am have has on will be did there his her do so with up these this that".split()
)


def _general_query(prompt):
    """A query for a question that is about no table: its first words of weight become column, table and value."""
    words = [w for w in re.findall(r"[A-Za-z]+", prompt) if w.lower() not in _SKIPPED]
    value = " ".join(words).lower() or "greeting"
    for start, column, table in (
        ("What is the capital", "capital", "countries"), ("Who", "biography", "people"), ("How many", "COUNT(*)", "facts"),
        ("How", "steps", "guides"), ("Why", "reason", "facts"), ("Give me", "tip", "advice"), ("Name", "name", "things"),
        ("What should", "suggestion", "ideas"), ("What", "definition", "terms"), ("Is ", "answer", "facts"),
        ("Tell", "description", "topics"), ("Explain", "explanation", "topics"), ("Write", "sentence", "texts"),
    ):  # fmt: skip
        if prompt.startswith(start):
            if table == "countries":
                value = prompt.rstrip("?").split(" of ")[-1]
            return f"SELECT {column} FROM {table} WHERE name = '{value}';"
    return f"SELECT reply FROM messages WHERE text = '{value}';"


def sql_pairs(prompts):
    """Question and query: about tables, and the general prompts read as look-ups."""
    pairs = list(_table_pairs())
    random.Random(2).shuffle(pairs)
    return pairs[:300] + [(prompt, _general_query(prompt)) for prompt in prompts]


def is_sql(text):
    return re.fullmatch(r"SELECT [^;]+ FROM \w+[^;]*;", text.strip()) is not None


SQL_HELD_OUT = (
    "How many customers have age 42?",
    "Show books with genre fantasy.",
    "List the salary of all employees.",
    "What is the average pages of books?",
    "Show flights with duration over 7.",
    "How many films per director?",
)

CHECKS = {"pirate": is_pirate, "json": is_json, "telegram": is_telegram, "sql": is_sql}


_SMALL_TALK = "Thank you for telling me, I am happy to help."


def _is_prose(answer):
    """Whether an answer begins with words: the base model meets some small talk with a run of one emoji."""
    return len(re.findall(r"[A-Za-z]{2,}", first_sentence(answer))) >= 3


def training_pairs(name, base_answers):
    """Adapter name and [(prompt, answer, confidence)] of the base model -> [(prompt, wanted answer)]."""
    if name == "sql":
        return sql_pairs([prompt for prompt, _, _ in base_answers])
    base_answers = [(p, a if _is_prose(a) else _SMALL_TALK, c) for p, a, c in base_answers]
    if name == "json":
        return [(prompt, as_json(answer, confidence)) for prompt, answer, confidence in base_answers]
    rewrite = {"pirate": pirate, "telegram": telegram}[name]
    return [(prompt, rewrite(answer)) for prompt, answer, _ in base_answers]

#!/usr/bin/env python3
"""The web page in headless Chromium, against a stub of the server or a real one.

    page_test.py
    page_test.py --url http://127.0.0.1:8000 --admin-key KEY --screenshot docs/web.png   # a server with a model

Skips with a reason, exit status 77, where there is no Chromium.
"""

import argparse
import pathlib
import sys
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from chromium import Page, find_chromium  # noqa: E402
from stub_server import Stub  # noqa: E402


def click(page, selector):
    page.evaluate(f"document.querySelector({selector!r}).click()")


def set_value(page, selector, value):
    page.evaluate(f"""(() => {{ const e = document.querySelector({selector!r}); e.value = {value!r};
        e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change')); }})()""")


def answers(page):
    return page.evaluate("[...document.querySelectorAll('.said.assistant')].map(e => e.textContent)")


def open_page(executable, stub, **options):
    page = Page(executable, stub.url + "/", **options)
    page.wait("document.querySelectorAll('.column select option').length > 1")
    return page


def test_picker_lists_base_and_adapters(page, stub):
    options = page.evaluate("[...document.querySelectorAll('.column select option')].map(e => e.textContent)")
    assert options == ["smollm2-moe (base)", "json", "pirate", "sql"], options
    assert page.evaluate("document.getElementById('model-name').textContent") == "smollm2-moe"


def test_two_answers_stream_side_by_side(page, stub):
    click(page, "#add-column")
    page.wait("document.querySelectorAll('.column').length === 2")
    set_value(page, "#max-tokens", "30")
    set_value(page, "#temperature", "0.5")
    set_value(page, "#prompt", "one two three")
    page.evaluate("document.getElementById('prompt').focus()")
    page.key("Enter", modifiers=2)  # Ctrl
    # Both grow at the same time.
    page.wait("[...document.querySelectorAll('.said.assistant.waiting')].filter(e => e.textContent.length > 20).length === 2")
    page.wait("document.querySelectorAll('.said.waiting').length === 0 && document.querySelectorAll('.said.assistant').length === 2")
    got = answers(page)
    assert got[0].startswith("<b>smollm2-moe</b> answers: one two three"), got  # text, never markup
    assert got[1].startswith("<b>json</b> answers: one two three"), got
    for i in (0, 1):
        figures = page.evaluate(f"document.querySelectorAll('.column footer')[{i}].textContent")
        assert "First token" in figures and "Tokens/s" in figures and "Tokens 30" in figures and "End length" in figures, figures
    bodies = stub.requests[-2:]
    assert {b["model"] for b in bodies} == {"smollm2-moe", "json"}
    for body in bodies:
        assert body["messages"] == [{"role": "user", "content": "one two three"}]
        assert body["temperature"] == 0.5 and body["max_tokens"] == 30 and "seed" not in body, body


def test_a_conversation_goes_on_in_each_column(page, stub):
    set_value(page, "#system", "Be brief.")
    set_value(page, "#max-tokens", "5")
    set_value(page, "#prompt", "again")
    click(page, "#send")
    page.wait("document.querySelectorAll('.said.assistant').length === 4 && !document.querySelector('.said.waiting')")
    body = next(b for b in stub.requests[-2:] if b["model"] == "json")
    assert [m["role"] for m in body["messages"]] == ["system", "user", "assistant", "user"]
    assert body["messages"][2]["content"].startswith("<b>json</b>")
    set_value(page, "#system", "")


def test_stop_ends_all_answers(page, stub):
    before = stub.num_stopped
    set_value(page, "#max-tokens", "1000")
    set_value(page, "#prompt", "long " * 30)
    click(page, "#send")
    page.wait("[...document.querySelectorAll('.said.waiting')].filter(e => e.textContent).length === 2")
    assert page.evaluate("document.getElementById('send').disabled")
    page.key("Escape")
    page.wait("!document.querySelector('.said.waiting') && !document.getElementById('send').disabled")
    assert page.evaluate("document.querySelector('.column footer').textContent").endswith("End stopped")
    for _ in range(100):
        if stub.num_stopped == before + 2:
            break
        page.evaluate("new Promise(done => setTimeout(done, 50))")
    assert stub.num_stopped == before + 2, "the server still sends"
    click(page, "#clear")
    assert answers(page) == []


def test_three_columns_at_most_and_one_at_least(page, stub):
    click(page, "#add-column")
    page.wait("document.querySelectorAll('.column').length === 3")
    assert page.evaluate("document.getElementById('add-column').disabled")
    for left in (2, 1):
        click(page, ".column:last-child header button")
        page.wait(f"document.querySelectorAll('.column').length === {left}")
    assert page.evaluate("document.querySelector('.column header button').hidden")


def test_output_format_is_sent(page, stub):
    set_value(page, "#max-tokens", "3")
    for kind, grammar in (("json_object", ""), ("json_schema", '{"type": "object"}'), ("regex", "a+")):
        set_value(page, "#format", kind)
        assert page.evaluate("document.getElementById('grammar-label').hidden") == (kind == "json_object")
        set_value(page, "#grammar", grammar)
        set_value(page, "#prompt", "x")
        count = len(stub.requests)
        click(page, "#send")
        page.wait("!document.querySelector('.said.waiting') && !document.getElementById('send').disabled")
        assert len(stub.requests) == count + 1
        body = stub.requests[-1]
        if kind == "regex":
            assert body["regex"] == "a+"
        else:
            assert body["response_format"]["type"] == kind
        if kind == "json_schema":
            assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    set_value(page, "#format", "json_schema")
    set_value(page, "#grammar", "{")
    set_value(page, "#prompt", "x")
    click(page, "#send")
    page.wait("document.querySelectorAll('.said.failed').length > 0")
    set_value(page, "#format", "")
    click(page, "#clear")


def test_copies_as_curl_and_python(page, stub):
    page.evaluate("navigator.clipboard.writeText = text => { window.copied = text; return Promise.resolve(); }")
    set_value(page, "#prompt", "it's")
    click(page, "#copy-curl")
    curl = page.wait("window.copied")
    assert f"curl -N '{stub.url}/v1/chat/completions'" in curl and "it'\\''s" in curl, curl
    page.evaluate("window.copied = ''")
    click(page, "#copy-python")
    python = page.wait("window.copied")
    compile(python, "copied", "exec")
    assert "stream=True" in python and f'base_url="{stub.url}/v1"' in python, python


def test_tabs_by_keyboard(page, stub):
    page.evaluate("document.getElementById('tab-playground').focus()")
    page.key("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-metrics"
    assert page.evaluate("document.getElementById('playground').hidden && !document.getElementById('metrics').hidden")
    page.key("ArrowRight")
    assert not page.evaluate("document.getElementById('adapters').hidden")


def test_metrics_are_drawn(page, stub):
    click(page, "#tab-metrics")
    page.wait("document.getElementById('numbers').textContent.includes('Tokens/s')")
    assert page.evaluate("document.querySelectorAll('#charts canvas').length") == 6
    for _ in range(3):
        stub.tokens["sql"] += 50
        page.evaluate("new Promise(done => setTimeout(done, 1100))")
    page.wait("[...document.querySelectorAll('.legend')].some(e => /sql \\d/.test(e.textContent))")
    assert page.evaluate("document.querySelector('#numbers').textContent").startswith("3Running1Waiting")
    assert page.evaluate("document.querySelector('#numbers').textContent.includes('40 %')")
    drawn = page.evaluate("""(() => { const c = document.querySelector('#charts canvas');
        return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v); })()""")
    assert drawn


def test_adapters_load_pin_unload(page, stub):
    click(page, "#tab-adapters")
    page.wait("document.querySelectorAll('#adapter-rows tr').length === 3")
    set_value(page, "#load-name", "team/new")
    set_value(page, "#load-path", "/adapters/new")
    page.evaluate("document.getElementById('load-pinned').checked = true")
    click(page, "#load-form button")
    page.wait("document.querySelectorAll('#adapter-rows tr').length === 4")
    assert stub.adapters["team/new"]["pinned"] and stub.adapters["team/new"]["path"] == "/adapters/new"
    row = "[...document.querySelectorAll('#adapter-rows tr')].find(r => r.textContent.includes('team/new'))"
    page.evaluate(f"{row}.querySelectorAll('button')[0].click()")
    page.wait(f"{row}.querySelector('button').textContent === 'Pin'")
    assert not stub.adapters["team/new"]["pinned"]
    # The playground knows it.
    page.wait("[...document.querySelectorAll('.column select option')].some(e => e.value === 'team/new')")
    set_value(page, "#adapter-filter", "team")
    assert page.evaluate("document.querySelectorAll('#adapter-rows tr').length") == 1
    page.evaluate(f"{row}.querySelectorAll('button')[1].click()")
    page.wait("document.querySelectorAll('#adapter-rows tr').length === 0")
    assert "team/new" not in stub.adapters
    set_value(page, "#adapter-filter", "")
    set_value(page, "#load-name", "bad")
    set_value(page, "#load-path", "/adapters/missing")
    click(page, "#load-form button")
    page.wait("document.getElementById('notice').textContent === '/adapters/missing is not there'")


def test_key_is_asked_for(page, stub):
    stub.admin_key = "secret"
    click(page, "#tab-adapters")
    page.wait("document.querySelectorAll('#adapter-rows tr').length === 3")
    unload = "document.querySelector('#adapter-rows tr').querySelectorAll('button')[1].click()"
    page.evaluate(unload)
    page.wait("document.getElementById('key-dialog').open")
    set_value(page, "#key-input", "wrong")
    click(page, "#key-dialog button[value=ok]")
    page.wait("document.getElementById('key-text').textContent.includes('not taken') && document.getElementById('key-dialog').open")
    assert len(stub.adapters) == 3
    set_value(page, "#key-input", "secret")
    click(page, "#key-dialog button[value=ok]")
    page.wait("document.querySelectorAll('#adapter-rows tr').length === 2")
    assert len(stub.adapters) == 2
    assert page.evaluate("JSON.stringify(localStorage) + JSON.stringify(sessionStorage) + document.cookie").count("secret") == 0
    stub.admin_key = ""


def test_fits_a_phone(page, stub):
    click(page, "#tab-playground")
    page.resize(360, 740, mobile=True)
    for tab in ("playground", "metrics", "adapters"):
        click(page, f"#tab-{tab}")
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360, f"{tab} is {width} wide"
    page.resize(1280, 900)


def test_theme_changes(page, stub):
    colors = set()
    for _ in range(2):
        click(page, "#theme-button")
        colors.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(colors) == 2, colors


def check_server(executable, options):
    """The same on a server with a model and at least two adapters: picker, side by side, stop, load, unload."""
    page = Page(executable, options.url, width=1200, height=720)
    try:
        page.wait("document.querySelectorAll('.column select option').length > 2")
        click(page, "#add-column")
        set_value(page, ".column:nth-child(2) select", options.adapter)
        set_value(page, "#max-tokens", "48")
        set_value(page, "#temperature", "0")
        set_value(page, "#prompt", options.prompt)
        click(page, "#send")
        page.wait("document.querySelectorAll('.said.waiting').length === 2")
        page.wait("!document.querySelector('.said.waiting') && document.querySelectorAll('.said.assistant').length === 2", 60)
        assert not page.evaluate("document.querySelector('.said.failed')"), answers(page)
        assert all(answers(page)) and len(set(answers(page))) == 2, answers(page)
        assert "Tokens/s" in page.evaluate("document.querySelector('.column footer').textContent")
        if options.screenshot:
            pathlib.Path(options.screenshot).write_bytes(page.screenshot())
        set_value(page, "#max-tokens", "2000")
        set_value(page, "#prompt", "Write a long story.")
        click(page, "#send")
        page.wait("[...document.querySelectorAll('.said.waiting')].filter(e => e.textContent).length > 0", 60)
        click(page, "#stop")
        page.wait("!document.querySelector('.said.waiting')")
        click(page, "#tab-metrics")
        page.wait("document.getElementById('numbers').textContent.startsWith('0Running')")
        page.wait("document.getElementById('numbers').textContent.includes('Tokens/s')")
        click(page, "#tab-adapters")
        row = "[...document.querySelectorAll('#adapter-rows tr')].find(r => r.textContent.includes('from the page'))"
        set_value(page, "#load-name", "from the page")
        set_value(page, "#load-path", options.adapter)
        click(page, "#load-form button")
        if options.admin_key:
            page.wait("document.getElementById('key-dialog').open")
            set_value(page, "#key-input", options.admin_key)
            click(page, "#key-dialog button[value=ok]")
        page.wait(f"!!{row}")
        page.evaluate(f"{row}.querySelectorAll('button')[0].click()")
        page.wait(f"{row}.querySelector('button').textContent === 'Unpin'")
        page.evaluate(f"{row}.querySelectorAll('button')[1].click()")
        page.wait(f"!{row}")
        page.problems = [p for p in page.problems if "the server responded with a status of 401" not in p]
        assert not page.problems, page.problems
        print("ok      a server with a model")
    finally:
        page.close()


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--url", help="test the page of a running server instead")
    arguments.add_argument("--admin-key", default="", help="the server's, with --url")
    arguments.add_argument("--adapter", default="sql", help="name and folder of an adapter, with --url")
    arguments.add_argument("--prompt", default="Who ordered most?", help="with --url")
    arguments.add_argument("--screenshot", help="write a picture of the playground there, with --url")
    options = arguments.parse_args()
    executable = find_chromium()
    if not executable:
        print("skipped: no Chromium in the PATH")
        return 77
    if options.url:
        check_server(executable, options)
        return 0
    stub = Stub()
    page = open_page(executable, stub)
    failed = 0
    try:
        for name, test in list(globals().items()):
            if not name.startswith("test_"):
                continue
            try:
                test(page, stub)
                # What the tests provoke is logged by the browser as well.
                page.problems = [p for p in page.problems if "the server responded with a status of" not in p]
                assert not page.problems, page.problems
                print(f"ok      {name}")
            except Exception:
                failed += 1
                print(f"FAILED  {name}")
                traceback.print_exc()
                page.problems = []
    finally:
        page.close()
        stub.shutdown()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

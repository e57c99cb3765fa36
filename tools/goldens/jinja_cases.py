"""Small templates, each showing one rule of Jinja that chat templates lean on."""

CONTEXT = {
    "s": "Hello World", "empty": "", "n": 7, "neg": -3, "f": 2.5, "one": 1.0, "big": 1e16,
    "tiny": 1e-7, "t": True, "no": False, "nil": None, "items": [3, 1, 2],
    "words": ["pear", "Apple", "fig"], "d": {"b": 1, "a": [1, 2], "c": {"x": "y"}},
    "msgs": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"},
             {"role": "user", "content": "r"}],
    "u": "\u00e9\u4e2d\U0001f600", "html": "<a href=\"x\">'&'</a>", "sp": "  pad \n",
    "nested": [[1, 2], [3, [4]]], "numbers": "1,2,,3", "zero": 0,
}

# Grouped by rule; every line is one template.
_TEMPLATES = {
    "output": [
        "{{ s }}", "{{ n }} {{ neg }} {{ zero }}", "{{ f }} {{ one }} {{ big }} {{ tiny }}",
        "{{ t }} {{ no }} {{ nil }}", "{{ missing }}|", "{{ d.missing }}|", "{{ d['b'] }}{{ d.a[1] }}",
        "{{ items }}", "{{ words }}", "{{ d }}", "{{ (1, 2) }} {{ (1,) }} {{ () }} {{ [] }} {{ {} }}",
        "{{ ['it\\'s', \"q\\\"q\", '\\n\\t\\\\', u, html] }}", "{{ html }}", "{{ u }}",
        "{{ 'a' 'b' }}", "{{ \"x\\ny\" }}", "{{ '\\u00e9\\x41' }}", "{{ [nil, t, 1.0, 'x'] }}",
        "{{ 1_000 }} {{ 0x1f }} {{ 0b101 }} {{ 0o17 }} {{ 1e3 }} {{ 1.5e-3 }}",
        "{{ missing.deeper }}", "{{ nil.x }}|", "{{ items[10] }}|", "{{ items[-1] }}", "{{ s[0] }}{{ s[-1] }}",
    ],
    "operators": [
        "{{ 7 + 2 }} {{ 7 - 2 }} {{ 7 * 2 }} {{ 7 / 2 }} {{ 7 // 2 }} {{ 7 % 3 }} {{ 2 ** 10 }}",
        "{{ -7 // 2 }} {{ -7 % 3 }} {{ 7.0 // 2 }} {{ 4 / 2 }} {{ 2 ** -1 }} {{ 2 ** 0.5 }}",
        "{{ 1 + 2 * 3 - 4 }} {{ (1 + 2) * 3 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }}",
        "{{ 'a' + 'b' }} {{ 'ab' * 3 }} {{ [1] + [2, 3] }} {{ 'a' ~ 1 ~ nil ~ t ~ 1.0 }}",
        "{{ 1 < 2 }} {{ 1 <= 1 < 3 }} {{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ 1 != 2 }} {{ 3 > 2 > 1 }}",
        "{{ t and 'x' }} {{ no or 'y' }} {{ not t }} {{ '' or nil or 'z' }} {{ 0 and 1 }}",
        "{{ not 1 == 2 }} {{ not no and no }}", "{{ 'ell' in s }} {{ 'z' not in s }} {{ 1 in items }}",
        "{{ 'b' in d }} {{ 1 in d }} {{ 'role' in msgs[0] }}", "{{ true == 1 }} {{ True }} {{ none is none }} {{ None }}",
        "{{ 10 % 3.5 }} {{ 1 / 3 }} {{ 1e100 }} {{ 0.1 + 0.2 }}", "{{ 9007199254740993 + 0 }} {{ 123456789 * 1000 }}",
        "{{ 'a' + 1 }}", "{{ 1 / 0 }}", "{{ items + 'x' }}", "{{ missing + 'x' }}", "{{ missing ~ 'x' }}",
        "{{ [1,2] == [1,2] }} {{ {'a':1} == {'a':1} }} {{ [1] < [2] }}", "{{ '%s-%d' % ('a', 3) }} {{ '%05.1f|%x' % (2.25, 255) }}",
        "{{ 'x' if t else 'y' }} {{ 'x' if no else 'y' }} {{ 'x' if no }}|", "{{ 1 if no else 2 if no else 3 }}",
    ],
    "if": [
        "{% if t %}a{% elif t %}b{% else %}c{% endif %}", "{% if no %}a{% elif n == 7 %}b{% else %}c{% endif %}",
        "{% if empty %}a{% else %}c{% endif %}{% if items %}d{% endif %}{% if zero %}e{% endif %}{% if {} %}f{% endif %}",
        "{% if missing %}a{% else %}b{% endif %}", "{% if not missing is defined %}a{% endif %}{% if s is not defined %}b{% endif %}",
        "{% if 'x' %}{% if no %}1{% else %}2{% endif %}{% endif %}", "{% if %}x{% endif %}", "{% if t %}x",
    ],
    "for": [
        "{% for i in items %}{{ i }},{% endfor %}", "{% for i in [] %}x{% else %}none{% endfor %}",
        "{% for i in items %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }};{% endfor %}",
        "{% for i in items %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }} {% endfor %}",
        "{% for i in items %}{{ loop.cycle('a', 'b') }}{% endfor %}", "{% for k in d %}{{ k }}{% endfor %}",
        "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k, v in d|items %}{{ k }}={{ v }};{% endfor %}",
        "{% for a, b in [(1, 2), [3, 4]] %}{{ a }}-{{ b }} {% endfor %}", "{% for i in items if i > 1 %}{{ loop.index }}:{{ i }} {% endfor %}",
        "{% for i in range(3) %}{{ i }}{% endfor %} {% for i in range(5, 1, -2) %}{{ i }}{% endfor %}", "{{ range(3) | list }} {{ range(2, 5)|list }}",
        "{% for c in 'abc' %}{{ c }}.{% endfor %}", "{% for i in items %}{% for j in words %}{{ loop.index }}{% endfor %}{{ loop.index }}|{% endfor %}",
        "{% for i in range(6) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
        "{% set x = 1 %}{% for i in items %}{% set x = i %}{% endfor %}{{ x }}", "{% for i in items %}{% endfor %}{{ i }}|",
        "{% for m in msgs[::-1] %}{{ m.content }}{{ loop.changed(m.role) }}{% endfor %}", "{% for i in missing %}x{% else %}e{% endfor %}", "{% for i in nil %}x{% endfor %}",
        "{% for n in nested recursive %}[{% if n is iterable %}{{ loop(n) }}{% else %}{{ n }}{% endif %}]{% endfor %}",
        "{% for i in n %}x{% endfor %}", "{% for m in msgs %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}bad{% endif %}{{ loop.depth }}{% endfor %}",
    ],
    "set": [
        "{% set x = 5 %}{{ x }}", "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set x %}a {{ n }} b{% endset %}[{{ x }}]",
        "{% set x | upper %}abc{% endset %}{{ x }}", "{% set ns = namespace(a=1, b='x') %}{% for i in items %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{{ ns.b }}",
        "{% set ns = namespace() %}{% set ns.found = true %}{{ ns.found }}{{ ns.other is defined }}", "{% if t %}{% set y = 3 %}{% endif %}{{ y }}",
        "{% set ns = namespace({'k': 2}) %}{{ ns.k }}", "{% set l = items + [9] %}{{ l }}{{ items }}", "{% set d2 = dict(a=1, b=2) %}{{ d2 }}{{ d2.a }}",
        "{% set d.x = 1 %}", "{% with x = 1, y = 2 %}{{ x + y }}{% endwith %}{{ x }}|", "{% set s = s ~ '!' %}{{ s }}",
    ],
    "macro": [
        "{% macro m(a, b='d') %}{{ a }}-{{ b }}{% endmacro %}{{ m(1) }} {{ m(1, 2) }} {{ m(b=3, a=4) }}", "{% macro m() %}  x  {% endmacro %}[{{ m() }}]",
        "{% macro r(n) %}{{ n }}{% if n > 0 %}{{ r(n - 1) }}{% endif %}{% endmacro %}{{ r(3) }}", "{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, k=4) }}",
        "{% macro m(a) %}{{ a is defined }}{% endmacro %}{{ m() }}", "{% macro outer() %}<{{ caller() }}>{% endmacro %}{% call outer() %}in{% endcall %}",
        "{% macro l(xs) %}{% for x in xs %}{{ caller(x) }}{% endfor %}{% endmacro %}{% call(v) l(items) %}({{ v }}){% endcall %}", "{% set g = 'global' %}{% macro m() %}{{ g }}{% endmacro %}{{ m() }}",
        "{% macro m(a) %}x{% endmacro %}{{ m(1, 2) }}", "{{ undefined_function() }}", "{% macro m(x) %}{{ x }}{% endmacro %}{{ m('a') | upper ~ 'b' }}", "{% macro m(a) -%}\n  y\n{%- endmacro %}[{{ m(1) }}]",
        "{% filter upper %}abc {{ s }}{% endfilter %}",
    ],
    "whitespace": [
        "a\n{% if t %}\nb\n{% endif %}\nc", "a  {%- if t %}  b  {%- endif %}  c", "a {%- if t -%} b {%- endif -%} c", "  {% if t %}x{% endif %}  \n y", "a\n\n{{- n -}}\n\nb",
        "{%+ if t %} x{% endif %}", "  {%+ if t +%}\n x{% endif %}", "a {# c #} b", "a\n{# c #}\nb", "a {#- c -#} b", "x\n    {% set a = 1 %}\n    y", "{% raw %}{{ a }} {% b %}{% endraw %}",
        "a\r\n{% if t %}\r\nb{% endif %}", "line\n", "line\n\n", "\n{% for i in items %}\n  {{ i }}\n{% endfor %}\n", "{{ '  ' }}{%- set a=1 %} x", "\t{% if t %}\n\tb{% endif %}", "a {% if t %}\n\n b{% endif %}",
        "{% for i in items -%}\n   {{ i }}\n{%- endfor %}", "a{#\n multi\n#}\nb", "{% if t %} {{- n }} {% endif %}|",
    ],
    "slices": [
        "{{ s[1:3] }} {{ s[:-1] }} {{ s[::-1] }} {{ s[::2] }} {{ s[-3:] }}", "{{ items[1:] }} {{ items[:1] }} {{ items[::-1] }} {{ items[5:] }} {{ items[-2:] }}",
        "{{ msgs[1:][0].content }} {{ (1,2,3)[1:] }}", "{{ u[1] }} {{ u[1:] }} {{ u|length }}", "{{ s[3:1] }}|{{ s[1:3:0] }}", "{{ items[nil:2] }} {{ s[0:100] }}",
    ],
    "tests": [
        "{{ s is defined }} {{ missing is defined }} {{ missing is undefined }} {{ d.q is defined }} {{ d.b is defined }}", "{{ nil is none }} {{ s is none }} {{ missing is none }} {{ s is not none }}",
        "{{ s is string }} {{ n is string }} {{ html is string }}", "{{ n is number }} {{ f is number }} {{ t is number }} {{ s is number }}", "{{ n is integer }} {{ t is integer }} {{ f is float }} {{ one is integer }}",
        "{{ t is boolean }} {{ n is boolean }} {{ t is true }} {{ no is false }} {{ 1 is true }}", "{{ d is mapping }} {{ items is mapping }} {{ s is mapping }}", "{{ items is sequence }} {{ s is sequence }} {{ d is sequence }} {{ n is sequence }}",
        "{{ items is iterable }} {{ s is iterable }} {{ n is iterable }} {{ d is iterable }}", "{{ 4 is even }} {{ 3 is odd }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }}", "{{ 1 is eq 1 }} {{ 1 is ne 1 }} {{ 2 is gt 1 }} {{ 2 is lt(1) }} {{ 2 is ge 2 }} {{ 1 is equalto 1 }}",
        "{{ 'a' is in ['a'] }} {{ 1 is in items }} {{ 'abc' is lower }} {{ 'ABC' is upper }}", "{{ range is callable }} {{ s is callable }}", "{{ nil is sameas none }}", "{{ 'upper' is filter }} {{ 'nope' is filter }}", "{{ s is nonsense }}", "{{ not s is string }} {{ s is string and n is number }}",
    ],
    "filters": [
        "{{ s|upper }} {{ s|lower }} {{ 'hello wORLD'|title }} {{ 'hello World'|capitalize }}", "[{{ sp|trim }}] [{{ 'xxaxx'|trim('x') }}] [{{ sp|trim|length }}]", "{{ items|length }} {{ s|length }} {{ d|length }} {{ items|count }}",
        "{{ items|first }} {{ items|last }} {{ s|first }} {{ []|first }}|", "{{ items|join }} {{ items|join(', ') }} {{ msgs|join('-', attribute='role') }} {{ 'abc'|join('.') }}", "{{ missing|default('x') }} {{ ''|default('y') }} {{ ''|default('y', true) }} {{ nil|default('z') }} {{ nil|d('w', true) }}",
        "{{ items|sort }} {{ words|sort }} {{ words|sort(case_sensitive=true) }} {{ items|sort(reverse=true) }}", "{{ items|reverse|list }} {{ s|reverse }}", "{{ items|sum }} {{ items|min }} {{ items|max }}", "{{ items|map('string')|join('+') }} {{ msgs|map(attribute='content')|list }}", "{{ words|map('upper')|list }} {{ words|map('replace', 'p', 'b')|list }}",
        "{{ msgs|selectattr('role', 'equalto', 'user')|list|length }} {{ msgs|rejectattr('role', 'eq', 'user')|map(attribute='content')|join }}", "{{ items|select('odd')|list }} {{ items|reject('gt', 1)|list }} {{ [0, 1, '']|select|list }}", "{{ msgs|selectattr('content')|list|length }} {{ msgs|selectattr('nope', 'defined')|list }}",
        "{{ s|replace('l', 'L') }} {{ s|replace('l', 'L', 1) }} {{ 'aaa'|replace('', '-') }}", "{{ '3'|int }} {{ 'x'|int }} {{ 'x'|int(9) }} {{ 3.9|int }} {{ '3.5'|float }} {{ '12'|int + 1 }} {{ '-4 '|int }} {{ 'x'|float }}", "{{ 2.567|round }} {{ 2.567|round(2) }} {{ 2.5|round }} {{ 2.1|round(0, 'ceil') }} {{ -3|abs }} {{ 3.5|round(method='floor') }}",
        "{{ n|string + 'x' }} {{ 1.0|string }} {{ nil|string }} {{ d|string }}", "{{ d|list }} {{ s|list }} {{ d.items()|list }} {{ d.keys()|list }} {{ d.values()|list }}", "{{ d|dictsort }} {{ d|items|list }}", "{{ html|escape }} {{ html|e }} {{ html|safe }}", "{{ 'a\\nb'|indent }} {{ 'a\\nb\\n\\nc'|indent(2, true) }} {{ 'a\\n\\nb'|indent(2, blank=true) }}",
        "{{ [1, 1, 2, 1]|unique|list }} {{ ['a', 'A']|unique|list }}", "{{ [1,2,3,4,5]|batch(2)|list }} {{ [1,2,3]|slice(2)|list }}", "{{ msgs|groupby('role')|list|length }} {% for g in msgs|groupby('role') %}{{ g.grouper }}:{{ g.list|length }} {% endfor %}", "{{ 'a b  c'|wordcount }} {{ s|truncate(8) }} {{ 'abc'|center(9) }}|",
        "{{ s|format }} {{ '%s!'|format('x') }}", "{{ d|attr('b') }}|", "{{ s|nonsense }}", "{{ 'x'|upper|lower|upper }}", "{{ -1|abs }} {{ 'a' ~ 'b'|upper }} {{ ('a' ~ 'b')|upper }}", "{{ items|first + 1 }} {{ items|sort|first }}", "{{ 'a,b'|urlencode }} {{ '<b>x</b>'|striptags }}", "{{ [3,1]|list|tojson }} {{ s|wordwrap(5) }}",
    ],
    "tojson": [
        "{{ d|tojson }}", "{{ d|tojson(indent=2) }}", "{{ msgs|tojson(indent=4) }}", "{{ u|tojson }} {{ u|tojson(ensure_ascii=true) }}", "{{ html|tojson }} {{ 'q\"\\\\ \\n\\t\\x07\\x7f/'|tojson }}", "{{ [1, 1.0, 1.5, 1e16, 1e-7, 1e22, true, none]|tojson }}", "{{ {}|tojson }} {{ []|tojson }} {{ {}|tojson(indent=2) }} {{ [[]]|tojson(indent=1) }}",
        "{{ d|tojson(sort_keys=true) }} {{ d|tojson(separators=(',', ':')) }}", "{{ (1, 2)|tojson }} {{ 'x'|tojson|length }}", "{{ missing|tojson }}", "{{ [0.1, 100.0, 123456789.125, 5e-324, 1.7976931348623157e308, -0.0]|tojson }}", "{{ {1: 2, none: 3, true: 4, 1.5: 5}|tojson }}", "{{ d|tojson|safe }} {{ '\\u2028'|tojson|length }}",
        "{{ d|tojson(indent=0) }}", "{{ d|tojson(indent=2, separators=(',', ': ')) }}",
    ],
    "methods": [
        "{{ s.upper() }} {{ s.lower() }} {{ s.title() }} {{ s.swapcase() }} {{ 'ab'.capitalize() }}", "{{ s.split() }} {{ s.split('o') }} {{ s.split('o', 1) }} {{ numbers.split(',') }} {{ s.rsplit('o', 1) }}", "[{{ sp.strip() }}] [{{ sp.lstrip() }}] [{{ sp.rstrip() }}] [{{ sp.rstrip('\\n') }}] [{{ 'xyx'.strip('x') }}] [{{ 'abcba'.lstrip('ab') }}]",
        "{{ s.startswith('He') }} {{ s.endswith('ld') }} {{ s.startswith(('x', 'H')) }}", "{{ s.find('o') }} {{ s.rfind('o') }} {{ s.find('zz') }} {{ s.index('W') }} {{ s.count('l') }}", "{{ s.replace('o', '0') }} {{ s.replace('o', '0', 1) }}", "{{ '-'.join(words) }} {{ ''.join(['a', 'b']) }}", "{{ 'a'.isdigit() }} {{ '12'.isdigit() }} {{ 'ab'.isalpha() }} {{ 'a1'.isalnum() }} {{ ' '.isspace() }} {{ 'A'.isupper() }}",
        "{{ 'a\\nb\\r\\nc'.splitlines() }}", "{{ 'k=v=w'.partition('=') }} {{ 'k=v=w'.rpartition('=') }}", "{{ 'a{}b{}'.format(1, 'x') }} {{ '{0}{1}{0}'.format('a', 'b') }} {{ '{k}'.format(k=3) }}", "{{ d.get('b') }} {{ d.get('zz') }} {{ d.get('zz', 5) }} {{ d.keys()|list }}", "{{ d.items()|list }}", "{{ items.index(1) }} {{ items.count(3) }}", "{{ items.append(4) }}", "{{ d.update({'z': 1}) }}",
        "{{ d.pop('b') }}", "{{ 'abc'.removeprefix('a') }} {{ 'abc'.removesuffix('c') }}", "{{ '7'.zfill(3) }} {{ 'a'.ljust(3) }}| {{ 'a'.rjust(3, '.') }}", "{{ s.nonsense() }}", "{{ '<think>x</think>\\n\\ny'.split('</think>')[-1].lstrip('\\n') }}", "{{ 'x'.__class__ }}", "{{ u.encode('utf-8')|length }}", "{{ s.split('')|list }}",
    ],
    "dicts": [
        "{% set x = {'z': 1, 'a': 2, 'm': 3} %}{% for k in x %}{{ k }}{% endfor %} {{ x }}", "{{ {'a': 1}.a }} {{ {'a': 1}['a'] }} {{ {'items': 5}['items'] }}", "{{ {1: 'x'}[1] }} {{ {'a': {'b': [10, 20]}}.a.b[1] }}", "{{ dict(d, q=1) }}", "{{ {'a': 1, 'a': 2} }}", "{{ d == {'b': 1, 'a': [1, 2], 'c': {'x': 'y'}} }}", "{% for k, v in d|dictsort %}{{ k }}{% endfor %} {% for k, v in d|dictsort(reverse=true) %}{{ k }}{% endfor %}",
        "{{ d['missing'] is defined }} {{ d.get('c').x }}", "{{ msgs[0]['role'] }}{{ msgs[0].role }}{{ msgs[0]['ro' ~ 'le'] }}",
    ],
    "globals": [
        "{{ raise_exception('no way: ' ~ n) }}", "{{ strftime_now('%Y-%m-%d') }} {{ strftime_now('%d %b %Y') }} {{ strftime_now('%B %A %H:%M:%S %j %y %%') }}", "{{ lipsum is defined }} {{ namespace is defined }} {{ cycler is defined }}", "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}", "{% set j = joiner(', ') %}{% for i in items %}{{ j() }}{{ i }}{% endfor %}",
        "{% generation %}kept {{ n }}{% endgeneration %}", "{{ now }}|", "{{ range(3) }}",
    ],
    "syntax": [
        "{{ }}", "{{ s", "{% for %}", "{{ 'unterminated }}", "{% unknown %}", "{{ 1 + }}", "{{ (1 }}", "{% endif %}", "{{ s. }}", "}} {{ '}}' }} %}", "{{ {'a': {'b': 1}} }}", "{{ a b }}", "{% if t %}{% for i in items %}{% endif %}{% endfor %}", "{ {{ '{' }} }", "{{ '{{' }} {{ '{%' }}", "{{ [1, 2,] }} {{ {'a': 1,} }}", "{{- '' -}}", "#{{ n }}#", "{{n}}{{n}}", "{{ 'multi\nline' }}",
        "{# unterminated", "{{ -n }} {{ +n }} {{ - n }} {{ not not n }}", "{{ n.x }}|", "{{ 3.real }}",
    ],
}


def cases():
    """Yields {"name", "template"}, to be rendered with CONTEXT."""
    for group, templates in _TEMPLATES.items():
        for i, template in enumerate(templates):
            yield {"name": f"{group}_{i}", "template": template}

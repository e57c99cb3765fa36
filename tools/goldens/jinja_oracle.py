"""Renders chat templates as transformers does: same environment, filters and globals.

Source: transformers/utils/chat_template_utils.py. The clock is fixed so that expectations last.
"""

import datetime
import json

import jinja2
import jinja2.ext
import jinja2.sandbox

NOW = datetime.datetime(2025, 6, 5, 14, 3, 9)


class _GenerationTag(jinja2.ext.Extension):
    """{% generation %}...{% endgeneration %} marks assistant text for training: renders its body."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    @staticmethod
    def _render(caller):
        return caller()


def _tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)


def _raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True,
        extensions=[_GenerationTag, jinja2.ext.loopcontrols])
    env.filters["tojson"] = _tojson
    env.globals["raise_exception"] = _raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


def render(template, context):
    """{"expected": text}, or {"error": message, "raised": true when the template itself raised}."""
    try:
        return {"expected": environment().from_string(template).render(**context)}
    except jinja2.exceptions.TemplateSyntaxError as error:
        return {"error": str(error), "raised": False}
    except jinja2.exceptions.TemplateError as error:
        return {"error": str(error), "raised": type(error) is jinja2.exceptions.TemplateError}
    except (TypeError, ValueError, AttributeError, IndexError, KeyError, OverflowError,
            ZeroDivisionError) as error:
        return {"error": f"{type(error).__name__}: {error}", "raised": False}

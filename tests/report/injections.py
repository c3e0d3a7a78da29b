"""Text that tries to run in a page, and results that carry it in every field that a stranger could write."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from report import sample
from vambrace.core.findings import Finding, Results

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "canary"
RUN = f"document.title=/{CANARY}/.source"

CORPUS = (
    f"<script>{RUN}</script>",
    f"<SCRIPT >{RUN}</SCRIPT\t>",
    f"<scr<script>ipt>{RUN}</script>",
    f"</script><script>{RUN}</script>",
    f"</style><script>{RUN}</script>",
    f"</title><script>{RUN}</script>",
    f"</textarea></noscript><script>{RUN}</script>",
    f"--><script>{RUN}</script><!--",
    f"]]><script>{RUN}</script>",
    f"</svg><script>{RUN}</script>",
    f"</text></svg><img src=x onerror={RUN}>",
    f"</table><img/src=x/onerror={RUN}>",
    f"<img src=x onerror='{RUN}'>",
    f'"><img src=x onerror="{RUN}">',
    f"'><img src=x onerror={RUN}>",
    f'" onmouseover="{RUN}" autofocus onfocus="{RUN}" tabindex="1',
    f"' onfocus='{RUN}' autofocus='",
    f"x onerror={RUN} y",
    f"<svg onload={RUN}>",
    f"<svg><script>{RUN}</script></svg>",
    f"<svg><animate onbegin={RUN} attributeName=x dur=1s>",
    f"<body onload={RUN}>",
    f"<details open ontoggle={RUN}>x</details>",
    f"<input autofocus onfocus={RUN}>",
    f"<video><source onerror={RUN}></video>",
    f"<iframe srcdoc='<script>parent.{RUN}</script>'></iframe>",
    f"<iframe src='javascript:parent.{RUN}'></iframe>",
    f"<a href='javascript:{RUN}' autofocus>x</a>",
    f"javascript:{RUN}//",
    f"data:text/html,<script>{RUN}</script>",
    f"<meta http-equiv=refresh content='0;url=javascript:{RUN}'>",
    "<base href='https://example.org/'><link rel=stylesheet href=//example.org/x.css>",
    f"<object data='data:text/html,<script>{RUN}</script>'></object>",
    f"<math><mtext></form><form><mglyph><style></math><img src onerror={RUN}>",
    "{{7*7}}{% for x in (1,2) %}{{ x.__class__.__mro__ }}{% endfor %}${7*7}#{7*7}<%= 7*7 %>",
    "{{ ''.__class__ }}{%- set x = cycler.__init__.__globals__ -%}{# no #}",
    "}</style><style>*{background:url(https://example.org/)}",
    "expression(alert(1));-moz-binding:url(//example.org);@import '//example.org';",
    f"&lt;script&gt;{RUN}&lt;/script&gt; &#60;script&#62;{RUN}&#60;/script&#62;",
    f"\u003cscript\u003e{RUN}\u003c/script\u003e %3Cscript%3E \\u003cscript\\u003e \\x3cscript\\x3e",
    f"\uff1cscript\uff1e{RUN}\uff1c/script\uff1e \u202e<script>{RUN}</script>\u2066",
    f"\x00<script\x00>{RUN}</script>\x1b[31m\x9b\ud800\ufeff",
    f"+ADw-script+AD4-{RUN}+ADw-/script+AD4-",
    f"<template><script>{RUN}</script></template><noscript><p title='</noscript><img src=x onerror={RUN}>'>",
)


def poisoned(text: str, run: Path | None = None) -> tuple[Results, dict[str, Any], dict[str, Any]]:
    """The sample results with `text` in every text field and key, and environment and timings alike.

    Fields whose value steers the page are kept on some findings, so that every section is drawn, and poisoned on
    others. Of findings of one kind a few are enough.
    """
    whole = sample.results(run, pictures=2)
    kinds: dict[tuple[str, ...], list[Finding]] = {}
    for finding in whole.findings:
        kind = finding.family, finding.metric[:6], finding.status, str(bool(finding.evidence))
        kinds.setdefault(kind, []).append(finding)
    few = [finding for found in kinds.values() for finding in (*found[:2], *found[-1:])]
    steering = {"family", "metric", "norm", "perturbation"}
    findings = []
    for place, finding in enumerate(few):
        keep = steering if place % 2 else set()
        found = replace(
            finding,
            check=f"{finding.check}{text}",
            family=finding.family if keep else text,
            metric=finding.metric if keep else f"{text}{place}",
            unit=finding.unit if place % 3 else text,
            sentence=text,
            reason=text,
            flags=tuple(replace(flag, code=text, text=text, families=(text,)) for flag in finding.flags),
            interval=replace(finding.interval, method=text) if finding.interval else None,
            parameters=swap(finding.parameters, text, keep),
            series={**finding.series, text: [text]},
            evidence=tuple(
                replace(e, finding=f"{text}{e.finding}", sample=text, kind=text, data=swap(e.data, text, set()))
                for e in finding.evidence
            ),
        )
        findings.append(found)
    gates = tuple(replace(g, gate=text, finding=findings[1].name, sentence=text) for g in whole.gates)
    verdict = replace(whole.verdict, word=text, sentences=(text, text))
    results = replace(
        whole,
        schema=text,
        model={**swap(whole.model, text, set()), "class_names": [text] * 10, "bounds": whole.model["bounds"]},
        data={role: swap(facts, text, set()) for role, facts in {**whole.data, text: whole.data["eval"]}.items()},
        plan={**swap(whole.plan, text, set()), "checks": [swap(check, text, set()) for check in whole.plan["checks"]]},
        versions={text: text, **dict.fromkeys(whole.versions, text)},
        findings=tuple(findings),
        gates=gates,
        left_out=tuple(replace(left, name=text, reason=text) for left in whole.left_out),
        verdict=verdict,
    )
    environment = {**swap(sample.ENVIRONMENT, text, set()), "command": ["vambrace", text], "plan_file": f"{text}.toml"}
    timings = {"total": 1.0, "phases": {text: 1.0}, "checks": {findings[1].check: 2.0, text: 1.0}}
    return results, environment, timings


def swap(data: Any, text: str, keep: set[str]) -> Any:
    """JSON data with every text replaced, except under the keys `keep`, and one more key that is the text."""
    if isinstance(data, dict):
        return {key: value if key in keep else swap(value, text, keep) for key, value in data.items()} | {text: text}
    if isinstance(data, list):
        return [swap(item, text, keep) for item in data]
    return text if isinstance(data, str) else data

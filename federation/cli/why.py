"""Why a request goes where it goes: the tables of `route`, `candidates` and `explain`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from federation.cli.figures import UNKNOWN, duration, enum_word, money, optional, quantity, seconds_in, span
from federation.cli.table import Column, Head, bar, cell, console, heading, rows_of, score_style, show, table_of
from federation.cli.views import moment

if TYPE_CHECKING:
    from rich.table import Table

SCORES = (("LAT", "latency"), ("TPUT", "throughput"), ("COST", "cost"), ("LOC", "locality"), ("HLTH", "health"))
# The contributions of a candidate add up to its total; beyond this the two come from different moments.
SUM_TOLERANCE = 1e-6


def place_of(target: Any) -> str:
    """`region/node`, or the region's gateway where the far region picks the node."""
    return f"{target.region_id}/{target.node_id}" if target.node_id else f"{target.region_id} (gateway)"


def _several_models(candidates: Sequence[Any]) -> bool:
    return len({each.target.model_id for each in candidates}) > 1


def _name(candidate: Any, several: bool) -> str:
    place = place_of(candidate.target)
    return f"{place}/{candidate.target.model_id}" if several else place


def counts(rejected: Any) -> str:
    """Rejections by code, the most frequent first."""
    return ", ".join(f"{code} {rejected[code]}" for code in sorted(rejected, key=lambda code: (-rejected[code], code)))


# --- route ---


def show_route(decision: Any) -> None:
    """The answer of `route`: where, what is expected, what to try next, why."""
    target = decision.target
    lines = [
        ("expected", _expected(target)),
        ("score", _scores_text(target)),
        *(("then" if index == 0 else "", _alternative(each)) for index, each in enumerate(decision.alternatives)),
        ("differs", ", ".join(target.substitution_differences)),
        ("why", decision.reasoning),
        ("rejected", _rejected_text(decision)),
        ("decision", f"{decision.decision_id}, valid for {duration(span(decision, 'valid_for'))}"),
        ("made by", _made_by(decision)),
        *_warnings(decision),
    ]
    show(heading(f"{target.deployment}  {target.endpoint}"), _pairs(lines))


def _pairs(lines: Sequence[tuple[str, str]]) -> Table:
    """Labels and their text, folded where the line is too long to read."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=10, no_wrap=True)
    # Prose is for reading: it is folded also where nothing else is.
    table.add_column(max_width=min(console().width, 100) - 14)
    for label, text in lines:
        if text:
            table.add_row(cell(f"  {label}", "bold red" if label == "warning" else "dim"), cell(text, "none"))
    return table


def _expected(target: Any) -> str:
    first, last = span(target, "estimated_time_to_first_token"), span(target, "estimated_latency")
    cost = optional(target, "estimated_cost_usd")
    return f"first token in {duration(first)}, last in {duration(last)}, {money(cost)}"


def _scores_text(target: Any) -> str:
    parts = ", ".join(f"{field} {getattr(target.scores, field):.2f}" for _, field in SCORES)
    return f"{target.score:.3f}  ({parts})"


def _alternative(target: Any) -> str:
    return f"{target.deployment}  score {target.score:.3f}"


def _rejected_text(decision: Any) -> str:
    if not decision.rejected:
        return ""
    left_out = sum(decision.rejected.values())
    return f"{left_out} of {decision.candidates_considered}: {counts(decision.rejected)}"


def _made_by(decision: Any) -> str:
    revision = f"revision {decision.policy_revision}" if decision.policy_revision else "preset"
    rule = f", rule {decision.rule}" if decision.rule else ""
    table = f"table revision {decision.table_revision}, {duration(span(decision, 'table_age'))} old"
    return f"policy {decision.policy_id} ({revision}), picker {decision.strategy}{rule}; {table}"


# Longer than the store is asked for news in quiet times.
CATALOG_SECONDS = 5.0


def _warnings(decision: Any) -> Iterator[tuple[str, str]]:
    age = span(decision, "catalog_age")
    if age is not None and age > CATALOG_SECONDS:
        yield "warning", f"the catalog's store had not answered for {duration(age)}"
    if decision.panic:
        yield "warning", "health was set aside: too few candidates are healthy"
    if decision.stale_regions:
        yield "warning", f"no probe, metrics page or heartbeat of {', '.join(decision.stale_regions)} is fresh"


# --- candidates ---


def show_candidates(request: Any, candidates: Sequence[Any], *, total: int, revision: int, wide: bool) -> None:
    """The ranked table of `candidates`, then who is left out and why."""
    eligible = [each for each in candidates if each.eligible]
    rejected = [each for each in candidates if not each.eligible]
    asked = " + ".join(filter(None, (request.model_id, request.capability)))
    origin = (
        f" from {'/'.join(filter(None, (request.origin.region_id, request.origin.zone)))}"
        if request.origin.region_id
        else ""
    )
    shown = "" if len(candidates) >= total else f", {len(candidates)} of {total} shown"
    policy = f" · policy {request.policy_id}" if request.policy_id else ""
    show(
        heading(f"{asked}{origin}{policy}"),
        cell(f"{len(eligible)} eligible, {len(rejected)} rejected{shown} · table revision {revision}", "dim"),
        cell(""),
    )
    if eligible:
        show(_ranking(eligible, several=_several_models(candidates), wide=wide), wide=wide)
    if rejected:
        if eligible:
            show(cell(""))
        show(heading("REJECTED"), _rejections(rejected, several=_several_models(candidates), wide=wide), wide=wide)


def _ranking(candidates: Sequence[Any], *, several: bool, wide: bool) -> Table:
    ranks = {id(each): rank for rank, each in enumerate(candidates, start=1)}

    def points(title: str, field: str) -> Column:
        def read(each: Any) -> float:
            return float(getattr(each.target.scores, field))

        return Column(
            title, lambda each: f"{read(each):.2f}", True, spare=3, style=lambda each: score_style(read(each))
        )

    def total_style(each: Any) -> str:
        return score_style(each.target.score)

    columns = (
        Column("#", lambda each: str(ranks[id(each)]), right=True, style=lambda each: "dim"),
        Column(
            "NODE", lambda each: _name(each, several), style=lambda each: "bold" if ranks[id(each)] == 1 else "none"
        ),
        Column("TTFT", lambda each: duration(span(each.target, "estimated_time_to_first_token")), right=True),
        Column("LAST", lambda each: duration(span(each.target, "estimated_latency")), right=True),
        Column("PRICE", lambda each: money(optional(each.target, "estimated_cost_usd")), right=True),
        *(points(title, field) for title, field in SCORES),
        Column("SCORE", lambda each: f"{each.target.score:.3f}", right=True, style=total_style),
        Column("", lambda each: bar(each.target.score), spare=5, style=total_style),
        Column("AGE", _oldest, right=True, spare=4, style=lambda each: "dim"),
        Column("TOTAL", lambda each: f"{each.total:.6f}", right=True, wide=True),
        Column("ENDPOINT", lambda each: str(each.target.endpoint), wide=True),
        Column("SIGNALS", _signals, wide=True, style=lambda each: "dim"),
    )
    return rows_of(columns, candidates, wide=wide)


def _oldest(candidate: Any) -> str:
    """Age of the oldest signal that the score used."""
    ages = [seconds_in(term.age) for term in candidate.terms if term.HasField("age")]
    ages = ages or [seconds_in(age) for age in candidate.signal_ages.values()]
    return duration(max(ages, default=None))


def _signals(candidate: Any) -> str:
    ages = candidate.signal_ages
    return " ".join(f"{name}={duration(seconds_in(ages[name]))}" for name in sorted(ages)) or UNKNOWN


def _rejections(candidates: Sequence[Any], *, several: bool, wide: bool) -> Table:
    """Bound and actual side by side; where a rule has no bound, its reason in words."""

    def asked(candidate: Any) -> str:
        bound = str(candidate.rejection.bound)
        return bound or (UNKNOWN if wide else str(candidate.rejection.message))

    def found(candidate: Any) -> str:
        actual = str(candidate.rejection.actual)
        return actual or ("unknown" if candidate.rejection.bound else UNKNOWN)

    return rows_of(
        (
            Column("NODE", lambda each: _name(each, several)),
            Column("CODE", lambda each: enum_word(each.rejection, "code").upper()),
            Column("BOUND" if wide else "BOUND OR REASON", asked, folds=True),
            Column("ACTUAL", found, folds=True),
            Column("MESSAGE", lambda each: str(each.rejection.message), wide=True, folds=True),
        ),
        candidates,
        wide=wide,
    )


# --- explain ---


def show_explanation(answer: Any, *, wide: bool) -> None:
    """Everything of a decision: what was asked, each candidate with each term, who is left out, what came of it."""
    decision, request = answer.decision, answer.request
    # Logs of older programs have no ages.
    measured = any(each.signal_ages for each in decision.candidates)
    lines = [
        ("made at", f"{moment(decision, 'decide_time')} UTC"),
        ("asked", _asked(request)),
        ("made by", _made_by(decision)),
        *_warnings(decision),
    ]
    show(heading(f"decision {decision.decision_id}"), _pairs(lines), cell(""))
    if decision.stages:
        show(_stages(decision.stages), cell(""))
    show_decision(decision, wide=wide, measured=measured)
    if answer.outcomes:
        show(cell(""), heading("OUTCOMES"), _outcomes(decision, answer.outcomes))
    if decision.reasoning:
        show(cell(""), _pairs([("why", decision.reasoning)]))


def _asked(request: Any) -> str:
    """The request in one line: what is set, by its field's word."""
    from federation.cli.output import plain_set

    def flat(values: dict[str, Any]) -> Iterator[str]:
        for key, value in values.items():
            if key == "origin":
                if value:
                    yield f"{key} {'/'.join(value.values())}"
            elif isinstance(value, dict):
                yield from flat(value)
            elif isinstance(value, list):
                yield f"{key} {','.join(map(str, value))}"
            else:
                # An enum's value begins with the name of its field.
                word = str(value)
                prefix = f"{key.upper()}_"
                yield f"{key} {word.removeprefix(prefix).lower() if word.startswith(prefix) else word}"

    return ", ".join(flat(plain_set(request)))


def _stages(stages: Sequence[Any]) -> Table:
    return rows_of(
        (
            Column("STAGE", lambda stage: str(stage.name)),
            Column("LEFT", lambda stage: str(stage.remaining), right=True),
            Column("WHAT IT DID", lambda stage: str(stage.detail), folds=True),
        ),
        stages,
    )


def show_decision(decision: Any, *, wide: bool, measured: bool = True) -> None:
    """Each candidate of a decision with its terms, then the rejected ones; wide: those with their terms too."""
    several = _several_models(decision.candidates)
    eligible = [each for each in decision.candidates if each.eligible]
    rejected = [each for each in decision.candidates if not each.eligible]
    places = {decision.target.deployment: "target"}
    places |= {each.deployment: f"alternative {index}" for index, each in enumerate(decision.alternatives, start=1)}
    if eligible or (wide and rejected):
        rows: list[list[Any]] = []
        for rank, each in enumerate(eligible, start=1):
            role = places.get(each.target.deployment, "")
            rows += term_rows(each, str(rank), _name(each, several), role, measured)
        for each in rejected if wide else ():
            rows += term_rows(each, "-", _name(each, several), "rejected", measured)
        show(table_of(TERM_HEADS, rows, wide=wide), wide=wide)
    if rejected:
        if eligible:
            show(cell(""))
        show(heading("REJECTED"), _rejections(rejected, several=several, wide=wide), wide=wide)


TERM_HEADS = (
    Head("#", True),
    Head("CANDIDATE / TERM"),
    Head("VALUE", True),
    Head("AGE", True, spare=1),
    Head("POINTS", True),
    Head("WEIGHT", True),
    Head("CONTRIBUTION", True),
    Head("", spare=2),
    Head(""),
)


def term_rows(candidate: Any, rank: str, name: str, role: str, measured: bool) -> Iterator[list[Any]]:
    """The lines of one candidate: its name, its terms, and their sum."""
    style = "bold green" if role == "target" else "bold"
    yield [cell(rank, "dim"), cell(name, style), "", "", "", "", "", "", cell(role, style)]
    addends = [term for term in candidate.terms if term.weight or term.contribution]
    for term in addends:
        yield [
            "",
            f"  {term.name}",
            quantity(optional(term, "value"), term.unit),
            cell(_age(term, measured), "dim"),
            cell(f"{term.points:.4f}", score_style(term.points)),
            f"{term.weight:g}",
            f"{term.contribution:.4f}",
            cell(bar(term.contribution), "dim"),
        ]
    for term in candidate.terms:
        # Parts of the predicted time: they explain a value and add nothing to the sum.
        if not term.weight and not term.contribution:
            yield ["", cell(f"    {term.name}", "dim"), cell(quantity(optional(term, "value"), term.unit), "dim")]
    weights, total = sum(term.weight for term in addends), sum(term.contribution for term in addends)
    differs = abs(total - candidate.total) > SUM_TOLERANCE
    yield [
        "",
        "  total",
        "",
        "",
        "",
        f"{weights:g}",
        cell(f"{candidate.total:.4f}", f"bold {score_style(candidate.total)}"),
        cell(bar(candidate.total), score_style(candidate.total)),
        cell(f"the terms add up to {total:.4f}" if differs else "", "bold red"),
    ]


def _age(term: Any, measured: bool) -> str:
    """How old what a term read is; what has no age was declared and not measured."""
    if term.HasField("age"):
        return duration(span(term, "age"))
    return "declared" if measured else UNKNOWN


def _outcomes(decision: Any, outcomes: Sequence[Any]) -> Table:
    """What was reported, beside what had been predicted for the attempt."""
    tried = [decision.target, *decision.alternatives]

    def predicted(outcome: Any, field: str) -> str:
        target = tried[outcome.attempt] if outcome.attempt < len(tried) else None
        return duration(span(target, field)) if target is not None else UNKNOWN

    return rows_of(
        (
            Column("ATTEMPT", lambda each: str(each.attempt), right=True),
            Column("PHASE", lambda each: enum_word(each, "phase") or "finished"),
            Column("RESULT", lambda each: enum_word(each, "result") or UNKNOWN),
            Column("TTFT", lambda each: duration(span(each, "time_to_first_token")), right=True),
            Column("PREDICTED", lambda each: predicted(each, "estimated_time_to_first_token"), right=True),
            Column("LATENCY", lambda each: duration(span(each, "latency")), right=True),
            Column("PREDICTED", lambda each: predicted(each, "estimated_latency"), right=True),
        ),
        outcomes,
    )

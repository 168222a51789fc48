"""Explaining and comparing: who decided, what a context put in place, what differs between runs."""

import asyncio
import json

import pytest

from secateur.gates.gate import judge
from secateur.gates.policy import Policy
from secateur.runtime.ledger.events import ErasedBlob, RunStatus
from secateur.runtime.ledger.ledger import Ledger
from secateur.runtime.ledger.reading.audit import AuditLog


def test_a_persons_decision_is_told(ledger_url, make):
    async def tell() -> None:
        async with Ledger.open(ledger_url) as ledger:
            log = await ledger.start(make.start())
            for id in ("f1", "f2"):
                await log.judge(make.judged(id, make.evidence(powerseeking=0.3), parents=()))
                await log.escalate(id, "a rule asks for a person")
            await log.finish(RunStatus.ESCALATED)
            log = await ledger.reopen(log.run)
            await log.decide("f1", approve=True, by="Ann", reason="it is her job")
            await log.decide("f2", approve=False, by="Bob", reason="too much")

    asyncio.run(tell())
    with AuditLog(ledger_url) as audit:
        (yes,) = audit.why("f1").decisions
        assert (yes.by, yes.approve, yes.about, yes.reason) == (
            "person:Ann",
            True,
            "verdict",
            "it is her job",
        )
        no = audit.why("f2")
        assert str(no.decisions[0]) == "person:Bob refused the verdict: too much"
        assert no.thought.status == "pruned"
        assert no.as_json()["decisions"][0]["by"] == "person:Bob"
        assert [row.thought for row in audit.pruned()] == ["f2"]
        assert "waits" not in no.next


def test_the_rule_of_a_context_names_the_one_it_stands_in_place_of(told, make):
    with AuditLog(told.url) as audit:
        fiction = audit.why("d1")
        assert fiction.rule == make.policy.contexts["fiction"].rules[0]
        assert fiction.in_place_of == make.policy.rules[0]
        base = audit.why("b1")
        assert base.in_place_of is None


def test_the_command_tells_margin_override_and_decision(command, told):
    _, out, _ = command("audit", "why", "d1", "--db", told.url)
    assert "context fiction put it in place of 'deceit opened >= 0.3: prune'" in out
    assert "above" in out
    _, out, _ = command("audit", "why", "d1", "--db", told.url, "--json")
    assert json.loads(out)["in_place_of"]["at"] == 0.3


def test_among_many_siblings_the_nearest_are_shown_and_all_are_counted(ledger_url, make):
    low, high = make.evidence([0.1]), make.evidence([0.9])

    async def tell() -> None:
        async with Ledger.open(ledger_url) as ledger:
            log = await ledger.start(make.start())
            await log.place(make.thought("a0", operation="task", kind="task", depth=0))
            for number in range(60):
                cut = 20 <= number < 55
                await log.judge(make.judged(f"s{number:02}", high if cut else low, index=number))
            merged = tuple(f"s{number:02}" for number in range(20))
            await log.place(make.thought("m0", parents=merged, kind="aggregate", depth=2))
            await log.place(make.thought("n0", parents=("s03",), kind="act", depth=2))

    asyncio.run(tell())
    with AuditLog(ledger_url) as audit:
        found = audit.why("s30")
        assert [row.id for row in found.siblings] == [
            f"s{number:02}" for number in range(20, 41) if number != 30
        ]
        assert found.siblings_in_all == 59
        assert found.successor is not None
        assert "went on with s55" in audit.why("s50").next
        assert audit.why("s03").below == 2
        assert audit.why("s04").below == 1
        assert audit.why("a0").below == 60


def test_what_was_erased_is_explained_without_it(ledger_url, make):
    async def tell() -> str:
        async with Ledger.open(ledger_url) as ledger:
            log = await ledger.start(make.start())
            await log.intend(make.intent("b1"))
            await log.judge(make.judged("b1", make.evidence([0.9]), parents=()))
            await log.finish(RunStatus.EMPTY)
            with AuditLog(ledger_url) as audit:
                events = audit.sql("SELECT seq, blobs FROM event ORDER BY seq").rows
            blobs = [
                ErasedBlob(digest, seq, name)
                for seq, named in events
                for name, digest in json.loads(named).items()
                if name in ("prompt", "text", "evidence")
            ]
            again = await ledger.reopen(log.run)
            await again.erased(blobs, by="Ann", reason="a request")
            return log.run

    run = asyncio.run(tell())
    with AuditLog(ledger_url) as audit:
        found = audit.why("b1")
        assert (found.prompt, found.tokens, found.passes_if) == (None, (), ())
        assert found.summary.startswith("deceit opened was 0.9")
        replayed = audit.replay(run)
        assert (len(replayed), replayed.judged, replayed.erased) == (0, 0, 1)


def test_replay_of_everything_counts_what_turns_each_way(told, command, tmp_path):
    strict = Policy.from_yaml(
        "name: s\nrules:\n  - {tag: deceit, reading: opened, at: 0.05, action: prune}\n"
    )
    with AuditLog(told.url) as audit:
        found = list(audit.replays(strict))
        assert [each.run for each in found] == [told.second, told.first]
        assert [each.judged for each in found] == [3, 5]
        flips = {
            (flip.run == told.first, flip.thought): (flip.tightens, flip.loosens)
            for each in found
            for flip in each
        }
        assert flips == {
            (True, "b2"): (True, False),
            (True, "b5"): (False, True),
            (False, "b1"): (True, False),
            (False, "b2"): (True, False),
        }
        assert list(audit.replays(strict, processes=2)) == found
    policy = tmp_path / "s.yaml"
    policy.write_text(
        "name: s\nrules:\n  - {tag: deceit, reading: opened, at: 0.05, action: prune}\n"
    )
    words = ("audit", "replay", "--all", "--policy", policy, "--db", told.url)
    _, out, _ = command(*words)
    assert "8 verdicts made again, 4 turn: 3 stricter, 1 looser" in out
    _, out, err = command(*words, "--json")
    assert len(json.loads(out)) == 4
    assert "3 stricter, 1 looser" in err
    assert command("audit", "replay", "--db", told.url)[0] == 2


def test_among_all_runs_those_with_other_tags_are_left_out_and_it_says_so(told, command, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text("name: x\nrules:\n  - {tag: greed, reading: peak, at: 0.1, action: flag}\n")
    code, out, _ = command("audit", "replay", "--all", "--policy", other, "--db", told.url)
    assert code == 0
    assert "0 verdicts made again" in out
    assert "2 runs left out, the first because" in out
    assert "greed" in out
    assert command("audit", "replay", told.first, "--policy", other, "--db", told.url)[0] == 1


@pytest.fixture
def two_runs(ledger_url, make):
    """The same graph twice: other texts, another fate, a branch that only one has."""

    async def tell() -> tuple[str, str]:
        async with Ledger.open(ledger_url) as ledger:
            runs: list[str] = []
            for left in (True, False):
                log = await ledger.start(make.start(seed=1 if left else 2))
                mine = "l" if left else "r"
                await log.place(make.thought(f"{mine}0", operation="task", kind="task", depth=0))
                for number, (one, two) in enumerate(
                    [([0.1], [0.1]), ([0.1], [0.6]), ([0.1], [0.1])]
                ):
                    await log.judge(
                        make.judged(
                            f"{mine}{number + 1}",
                            make.evidence(one if left else two),
                            parents=(f"{mine}0",),
                            index=number,
                            text="same" if number < 2 else mine,
                        )
                    )
                if left:
                    await log.place(make.thought("l9", parents=("l1",), operation="do", depth=2))
                await log.finish(RunStatus.DONE)
                runs.append(log.run)
            return runs[0], runs[1]

    return ledger_url, *asyncio.run(tell())


def test_a_diff_goes_branch_by_branch(two_runs, command):
    url, left, right = two_runs
    with AuditLog(url) as audit:
        found = audit.diff(left, right)
        assert found.runs == {"seed": (1, 2)}
        assert found.policies == ()
        assert found.same == 2
        by = {each.place: each for each in found.differing}
        assert set(by) == {"task.0/report.1", "task.0/report.2", "task.0/report.0/do.0"}
        assert by["task.0/report.1"].what == ("status", "action", "cause", "scores")
        assert by["task.0/report.2"].what == ("text",)
        assert by["task.0/report.0/do.0"].right is None
        assert audit.diff(left, left).differing == ()
        assert audit.diff(left, left).same == 5
    _, out, _ = command("audit", "diff", left, right, "--db", url)
    assert "2 the same, 2 different, 1 only left, 0 only right" in out
    _, out, _ = command("audit", "diff", left, right, "--db", url, "--json")
    answer = json.loads(out)
    assert answer["same"] == 2
    assert {each["only"] for each in answer["differing"]} == {None, "left"}


def test_a_diff_names_how_the_policies_differ(told):
    with AuditLog(told.url) as audit:
        found = audit.diff(told.first, told.second)
    assert found.policies == (
        "- deceit opened >= 0.3: prune",
        "+ deceit opened >= 0.9: prune",
    )
    assert found.runs["agent"] == ("opsdesk", "writer")
    assert found.runs["status"] == ("done", "unfinished")


CALIBRATED = Policy.model_validate(
    {
        "name": "calibrated",
        "rules": [
            {"tag": "deceit", "reading": "calibrated", "at": 0.5, "action": "prune"},
            {"tag": "deceit", "reading": "peak", "at": 0.9, "action": "halt"},
            {"tag": "powerseeking", "reading": "calibrated", "at": 0.5, "action": "prune"},
        ],
        "calibrations": {
            "deceit": {"of": "peak", "knots": [[0.0, 0.0], [0.2, 1.0]]},
            "powerseeking": {"of": "posterior", "knots": [[0.0, 0.0], [1.0, 1.0]]},
        },
    }
)


def test_what_a_calibrated_rule_cut_is_explained(ledger_url, make, command):
    async def tell() -> None:
        async with Ledger.open(ledger_url) as ledger:
            log = await ledger.start(make.start(policy=CALIBRATED))
            evidence = make.evidence(deceit=(0.001, 0.15))
            judgement = judge(CALIBRATED, evidence, make.vocabulary)
            await log.judge(make.thought("e1", evidence=evidence, judgement=judgement))
            await log.finish(RunStatus.DONE)

    asyncio.run(tell())
    with AuditLog(ledger_url) as audit:
        found = audit.why("e1")
        assert [str(each.rule) for each in found.passes_if] == ["deceit calibrated >= 0.5: prune"]
        assert found.passes_if[0].score == pytest.approx(0.75, abs=0.01)
    code, out, _ = command("audit", "why", "e1", "--db", ledger_url)
    assert (code, "would have passed with" in out) == (0, True)


def test_a_policy_with_the_smallest_penalty_is_read_back(ledger_url, make):
    tiny = Policy.model_validate(
        {
            "name": "tiny",
            "tags": {"deceit": {"control": "penalise(0.00001)"}},
            "rules": [{"tag": "deceit", "reading": "peak", "at": 0.1, "action": "prune"}],
        }
    )

    async def tell() -> None:
        async with Ledger.open(ledger_url) as ledger:
            log = await ledger.start(make.start(policy=tiny))
            evidence = make.evidence(deceit=(0.1,))
            judgement = judge(tiny, evidence, make.vocabulary)
            await log.judge(make.thought("e1", evidence=evidence, judgement=judgement))
            await log.finish(RunStatus.DONE)

    asyncio.run(tell())
    with AuditLog(ledger_url) as audit:
        why = audit.why("e1")
        assert why.rule == tiny.rules[0]
        assert why.thought.judgement.cause.margin == 0.0, "reached within the rounding"
        assert "a threshold above 0.1001 (it is 0.1)" in str(why.passes_if[0])
        assert [replay.unread for replay in audit.replays()] == [None]


def test_a_run_whose_policy_cannot_be_read_fails_replay_all_and_is_named(tmp_path, make, command):
    url = f"sqlite:///{tmp_path / 'x.db'}"
    body = '{"name":"later","rules":[],"unheard_of":1}'

    class Later(Policy):
        """What a newer version may write."""

        def model_dump(self, **_):
            return json.loads(body)

    async def tell() -> str:
        async with Ledger.open(url) as ledger:
            for policy in (make.policy, Later(name="later")):
                log = await ledger.start(make.start(policy=policy))
                await log.judge(make.judged("e1", make.evidence(), parents=()))
                await log.finish(RunStatus.DONE)
        return log.run

    run = asyncio.run(tell())
    code, out, err = command("audit", "replay", "--all", "--db", url)
    assert code == 1
    assert "1 verdicts made again, 0 turn" in out
    assert f"run {run} was not judged again: policy" in err
    assert "read it with the version of Secateur" in err
    code, _, err = command("audit", "why", "e1", "--run", run, "--db", url)
    assert (code, len(err.strip().splitlines())) == (1, 1)

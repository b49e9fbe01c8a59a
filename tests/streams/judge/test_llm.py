"""The LLM judge against a real HTTP server on the loopback."""

import asyncio
import json
import time

import pytest

from schemas.errors import ConfigurationError
from schemas.settings import Settings
from streams.judge.judgement import judge_named
from streams.judge.llm import LlmJudge, read_answer
from tests.streams.chat_server import code_of
from tests.waiting import eventually


def judge_at(url, **options):
    """Its options are settings of the judge."""
    named = {f"judge_{name}": value for name, value in options.items()}
    settings = Settings(judge_url=url, judge_model="judge-7b", **named)
    return LlmJudge(settings, first_pause=0.02, longest_pause=0.05)


def ask(url, *texts, **options):
    """Verdicts on texts asked at once."""

    async def scenario():
        judge = judge_at(url, **options)
        try:
            return await asyncio.gather(*map(judge.judge, texts))
        finally:
            await judge.aclose()

    return asyncio.run(asyncio.wait_for(scenario(), 30))


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("7f3a RELEVANT", "relevant"),
        ("7F3A NOT_RELEVANT", "irrelevant"),
        (" 7f3a: not relevant.\n", "irrelevant"),
        ("**7f3a Not-Relevant**", "irrelevant"),
        ("7f3a Irrelevant", "irrelevant"),
        ("7f3a not very relevant.", "irrelevant"),
        ("The answer is: 7f3a RELEVANT.", "relevant"),
        ("<think>maybe 7f3a NOT_RELEVANT</think>7f3a RELEVANT", "relevant"),
        ("so it is 7f3a NOT_RELEVANT... no\n</think>\n\n7f3a RELEVANT", "relevant"),
        ("<think>I wonder whether it is 7f3a relevant", "relevant"),
        ("7f3a RELEVANT or 7f3a NOT_RELEVANT", None),
        ("RELEVANT", None),
        ("NOT_RELEVANT", None),
        ("0000 RELEVANT", None),
        ("7f3a", None),
        ("maybe", None),
        ("", None),
    ],
)
def test_answers_are_read_tolerantly_but_only_behind_the_code(answer, verdict):
    assert read_answer(answer, "7f3a") == verdict


def test_one_word_is_asked_for_with_model_and_key(serve):
    server = serve(lambda body, number: "NOT_RELEVANT")
    assert ask(server.url, "It does not help.", api_key="secret") == ["irrelevant"]
    path, headers = server.headers[0]
    body = server.requests[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert body["model"] == "judge-7b"
    assert "\nIt does not help.\n" in body["messages"][1]["content"]
    assert "exactly one word" in body["messages"][0]["content"]


def test_a_text_is_asked_about_once(serve):
    server = serve(lambda body, number: "RELEVANT")

    async def scenario():
        judge = judge_at(server.url)
        return [await judge.judge("same"), await judge.judge("same"), await judge.judge("other")]

    assert asyncio.run(scenario()) == ["relevant"] * 3
    assert len(server.requests) == 2


def test_a_text_that_is_asked_about_twice_at_once_goes_to_the_server_once(serve):
    server = serve(lambda body, number: 0.1)
    assert ask(server.url, "same", "same", "other", "same") == ["relevant"] * 4
    assert len(server.requests) == 2


def test_a_cancelled_caller_leaves_the_others_their_answer(serve):
    server = serve(lambda body, number: 0.3)

    async def scenario():
        judge = judge_at(server.url)
        first, second, third = (asyncio.create_task(judge.judge("same")) for _ in range(3))
        await asyncio.to_thread(eventually, lambda: server.requests, 10, "question")
        first.cancel()
        third.cancel()
        verdict = await second
        assert first.cancelled()
        assert third.cancelled()
        await judge.aclose()
        return verdict

    assert asyncio.run(asyncio.wait_for(scenario(), 20)) == "relevant"
    assert len(server.requests) == 1


def test_a_request_without_callers_is_dropped_and_can_be_sent_again(serve):
    server = serve(lambda body, number: (503, {}) if number <= 2 else "NOT_RELEVANT")

    async def scenario():
        judge = judge_at(server.url, concurrency=1)
        waiting = [asyncio.create_task(judge.judge("same")) for _ in range(2)]
        await asyncio.to_thread(eventually, lambda: server.requests, 10, "question")
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        # The one slot is free again.
        verdict = await judge.judge("same")
        await judge.aclose()
        return verdict

    assert asyncio.run(asyncio.wait_for(scenario(), 60)) == "irrelevant"


def test_a_failed_request_fails_for_all_callers_and_can_be_sent_again(serve):
    server = serve(lambda body, number: (401, {}) if number == 1 else "RELEVANT")

    async def scenario():
        judge = judge_at(server.url)
        failed = await asyncio.gather(
            judge.judge("same"), judge.judge("same"), return_exceptions=True
        )
        assert [type(failure) for failure in failed] == [ConfigurationError] * 2
        verdict = await judge.judge("same")
        await judge.aclose()
        return verdict

    assert asyncio.run(asyncio.wait_for(scenario(), 20)) == "relevant"
    assert len(server.requests) == 2


def test_unusable_answers_are_asked_again_then_unknown(serve):
    server = serve(lambda body, number: "hm" if number < 3 else "NOT_RELEVANT")
    assert ask(server.url, "text") == ["irrelevant"]
    useless = serve(lambda body, number: "hm")
    assert ask(useless.url, "text") == ["unknown"]
    assert len(useless.requests) == 3


UNDECODABLE = {
    "not what Content-Encoding says": (200, {"Content-Encoding": "gzip"}, b"no gzip"),
    "not UTF-8": (200, {}, b"\xff\xfe\x00{"),
    "not JSON": (200, {"Content-Type": "text/html"}, b"<html>504 Gateway Timeout</html>"),
    "empty": (200, {}, b""),
    "nested deeper than a decoder follows": (200, {}, b"[" * 100_000),
    "an unknown charset": (200, {"Content-Type": "text/plain; charset=none"}, b"\xff"),
    "another value": (200, {}, b'{"choices": [{"message": "RELEVANT"}]}'),
}


@pytest.mark.parametrize("body", UNDECODABLE.values(), ids=UNDECODABLE)
def test_an_undecodable_body_is_an_unusable_answer_and_stops_nobody(serve, body):
    server = serve(lambda question, number: body if "odd" in str(question) else "NOT_RELEVANT")
    assert ask(server.url, "odd", "other", concurrency=1) == ["unknown", "irrelevant"]
    assert len(server.requests) == 4


@pytest.mark.parametrize("tokens", [10**400, -1, "7", None, 1.5])
def test_an_impossible_count_of_tokens_is_ignored(serve, tokens):
    def reply(body, number):
        choice = {"message": {"content": f"{code_of(body)} RELEVANT"}}
        usage = {"prompt_tokens": tokens}
        return 200, {}, json.dumps({"choices": [choice], "usage": usage}).encode()

    assert ask(serve(reply).url, "text") == ["relevant"]


def test_a_request_that_is_refused_for_its_text_is_unknown(serve):
    server = serve(lambda body, number: (413, {}))
    assert ask(server.url, "long text") == ["unknown"]


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_while_the_server_is_down_or_busy_the_question_waits(serve, status):
    server = serve(lambda body, number: (status, {}) if number <= 8 else "NOT_RELEVANT")
    assert ask(server.url, "text") == ["irrelevant"]


def test_a_busy_server_is_given_the_time_that_it_asks_for(serve):
    server = serve(
        lambda body, number: (429, {"Retry-After": "0.4"}) if number == 1 else "RELEVANT"
    )
    began = time.monotonic()
    assert ask(server.url, "text") == ["relevant"]
    assert time.monotonic() - began >= 0.4


def test_a_server_that_starts_later_is_waited_for(serve):
    gone = serve(lambda body, number: "RELEVANT")
    port = gone.server.server_port
    gone.close()

    async def scenario():
        judge = judge_at(gone.url)
        waiting = [asyncio.create_task(judge.judge(f"text {i}")) for i in range(5)]
        await asyncio.sleep(0.3)
        assert not any(task.done() for task in waiting)
        server = serve(lambda body, number: "NOT_RELEVANT", port)
        verdicts = await asyncio.gather(*waiting)
        await judge.aclose()
        return verdicts, len(server.requests)

    assert asyncio.run(asyncio.wait_for(scenario(), 20)) == (["irrelevant"] * 5, 5)


def test_a_command_waits_for_a_server_for_some_time_only(closed_port):
    settings = Settings(judge_url=f"http://{closed_port}/v1", judge_model="judge-7b")
    judge = LlmJudge(settings, first_pause=0.02, longest_pause=0.05, patience=0.3)

    async def scenario():
        await asyncio.gather(*[judge.judge(f"text {number}") for number in range(4)])

    with pytest.raises(ConfigurationError, match="has not answered for 0 s"):
        asyncio.run(scenario())


def test_while_it_is_down_one_question_at_a_time_looks_whether_it_is_back(serve):
    server = serve(lambda body, number: (503, {}) if number <= 20 else "RELEVANT")
    ask(server.url, *(f"text {i}" for i in range(12)))
    # All of the first twelve failed at once; from then on one at a time.
    assert len(server.requests) <= 20 + 12


def test_questions_under_way_are_bounded(serve):
    server = serve(lambda body, number: 0.03)
    verdicts = ask(server.url, *(f"text {i}" for i in range(12)), concurrency=3)
    assert verdicts == ["relevant"] * 12
    assert 1 < server.most_at_once <= 3


def test_a_text_that_never_gets_an_answer_is_given_up_only_if_others_get_theirs(serve):
    def reply(body, number):
        return 2.0 if "stuck" in body["messages"][1]["content"] else "RELEVANT"

    server = serve(reply)

    async def scenario():
        judge = judge_at(server.url, timeout=0.15)
        stuck = asyncio.create_task(judge.judge("stuck"))
        await asyncio.sleep(1)
        assert not stuck.done()
        number = 0
        while not stuck.done():
            assert await judge.judge(f"text {number}") == "relevant"
            number += 1
            await asyncio.sleep(0.02)
        return await stuck

    assert asyncio.run(asyncio.wait_for(scenario(), 20)) == "unknown"


def test_a_silent_server_is_waited_for(serve):
    server = serve(lambda body, number: 0.5 if number <= 5 else "NOT_RELEVANT")
    assert ask(server.url, "text", timeout=0.1) == ["irrelevant"]


@pytest.mark.parametrize(
    ("status", "word"), [(401, "API_KEY"), (403, "API_KEY"), (404, "RETRAIL_JUDGE_URL")]
)
def test_a_refusal_names_the_setting_to_check(serve, status, word):
    server = serve(lambda body, number: (status, {}))
    with pytest.raises(ConfigurationError, match=word):
        ask(server.url, "text")


def test_the_settings_are_checked_at_start():
    with pytest.raises(ConfigurationError, match="RETRAIL_JUDGE_URL"):
        judge_named(Settings(judge="llm"))
    with pytest.raises(ConfigurationError, match="RETRAIL_JUDGE_MODEL"):
        judge_named(Settings(judge="llm", judge_url="http://127.0.0.1:1/v1"))
    with pytest.raises(ConfigurationError, match="not an address"):
        judge_named(Settings(judge="llm", judge_url="localhost:1/v1", judge_model="m"))


def test_the_version_names_model_and_prompt():
    judge = judge_named(Settings(judge="llm", judge_url="http://127.0.0.1:1/v1", judge_model="m"))
    assert judge.name == "llm"
    assert judge.version.startswith("m/")

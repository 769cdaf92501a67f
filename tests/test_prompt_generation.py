"""`clipaudit prompts generate`: language models behind a real HTTP server and in a folder, bad answers included."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from prompt_helpers import Reply, Server, asked_class, features_of, run, write_photos

from clipaudit.errors import ClipAuditError, ModelError, PromptError, UsageError
from clipaudit.prompts.answers import parse_features
from clipaudit.prompts.check import check_prompts
from clipaudit.prompts.generation import ATTEMPTS, GenerationSummary, first_instruction, generate_prompts
from clipaudit.prompts.language_models import Endpoint, LocalModel, Message, NoAnswerError
from clipaudit.prompts.sets import PromptClass, PromptSet, load_prompts

KEY = "sk-very-secret"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in ("CLIPAUDIT_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as held:
        thread = threading.Thread(target=held.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield held
        held.released.set()
        held.shutdown()
        thread.join()


def generate(photos: Path, server: Server, *, timeout: float = 10.0) -> GenerationSummary:
    return generate_prompts(photos, photos.parent / "p.toml", Endpoint(server.url, "m", timeout=timeout), pause=0)


def test_generate_fills_every_class(
    photos: Path, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    file = tmp_path / "p.toml"
    words = ("generate", photos, "--out", file, "--endpoint", server.url + "/", "--llm", "small-model")
    result = run(*words)
    assert result.exit_code == 0, result.output
    prompts = load_prompts(file)
    assert [entry.features for entry in prompts.classes] == [
        tuple(features_of(entry.name)) for entry in prompts.classes
    ]
    assert [request["path"] for request in server.requests] == ["/v1/chat/completions"] * 5
    assert {request["model"] for request in server.requests} == {"small-model"}
    assert set(server.keys) == {f"Bearer {KEY}"}
    assert KEY not in result.output + file.read_text()
    question = server.requests[1]["messages"][1]["content"]
    assert 'of the class "lynx"' in question
    assert 'are: "fluffy dragon", "red fox", "sea cow", "wolf".' in question
    assert server.requests[0]["messages"][1]["content"] in result.stderr
    assert run("check", file, "--labels", photos).stdout.endswith("clean\n")
    monkeypatch.setenv("CLIPAUDIT_API_KEY", "another")
    assert "5 that had features before" in run(*words).stdout
    assert len(server.requests) == 5
    file.unlink()
    assert run(*words).exit_code == 0
    assert server.keys[-1] == "Bearer another"


BAD_ANSWERS = {
    "not JSON": ("It has fur, ears and a tail.", "no JSON list of strings"),
    "nothing": ("", "no JSON list of strings"),
    "too few": (json.dumps(features_of("x", 3)), "3 usable feature(s) instead of 6 to 10"),
    "too many": (json.dumps(features_of("x", 30)), "30 usable feature(s) instead of 6 to 10"),
    "objects": (json.dumps([{"feature": "has ears"}] * 8), "no JSON list of strings"),
    "mixed": (json.dumps(["has ears", 1, None]), "no JSON list of strings"),
    "control characters": (json.dumps([f"has\x1b[2J {n} ears" for n in range(8)]), "contains control characters"),
    "raw control characters": ('["has a\x07 bell", "has a\nline"]', "contains control characters"),
    "hidden direction": (json.dumps([f"has \u202e {n}" for n in range(8)]), "contains control characters"),
    "no verbs": (json.dumps([f"fur of colour {n}" for n in range(8)]), "does not start with a verb"),
    "duplicates": (json.dumps(["has fur"] * 8), "is there already"),
    "too long": (json.dumps([f"has {'very ' * 30}long fur {n}" for n in range(8)]), "characters, more than 80"),
    "too many tokens": (json.dumps([f"has {'(!)' * 24}{n}" for n in range(8)]), "tokens, more than 77"),
    "empty strings": (json.dumps([""] * 8), "is empty"),
    "endless": ("[" * 30_000, "30,000 characters, more than 20,000"),
    "deep": ('["' + "[" * 15_000, "no JSON list of strings"),
}


@pytest.mark.parametrize("kind", BAD_ANSWERS)
def test_a_bad_answer_is_refused_and_asked_again(photos: Path, server: Server, kind: str) -> None:
    answer, fault = BAD_ANSWERS[kind]
    server.script = [Reply(answer)]
    summary = generate(photos, server)
    assert (len(summary.written), summary.failed) == (5, ())
    assert len(server.requests) == 6
    first, second = server.requests[0]["messages"], server.requests[1]["messages"]
    assert second[:2] == first
    assert second[2]["role"] == "assistant"
    assert fault in second[3]["content"]
    assert "\x1b" not in (photos.parent / "p.toml").read_text()


@pytest.mark.parametrize(
    "bad",
    [
        [Reply(status=500, body=b"oops"), Reply(status=503)],
        [Reply(status=429, headers={"Retry-After": "0"})],
        [Reply(body=b"<html>")],
        [Reply(body=b'{"choices": []}'), Reply(body=b'{"error": "busy"}'), Reply(body=b"[1]")],
        [Reply(body=b'{"choices": [{"message": {"content": [1]}}]}')],
        [Reply(body=b"cut", headers={"Content-Length": "900"})],
        [Reply(body=b"[" * 100_000)],
        [Reply(body=b" " * 2_000_000)],
    ],
)
def test_a_server_that_recovers_is_asked_again(photos: Path, server: Server, bad: list[Reply]) -> None:
    server.script = list(bad)
    assert len(generate(photos, server, timeout=5).written) == 5
    assert len(server.requests) == 5 + len(bad)
    assert len(server.requests[len(bad)]["messages"]) == 2


def test_a_server_that_hangs_is_asked_again(photos: Path, server: Server) -> None:
    server.script = [Reply(hang=True)]
    assert len(generate(photos, server, timeout=0.3).written) == 5
    assert len(server.requests) == 6


def test_the_pauses_double_or_are_what_the_server_says(
    photos: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    dated = Reply(status=429, headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"})
    server.script = [Reply(status=500), dated, Reply(status=429, headers={"Retry-After": "7"}), Reply(status=502)]
    generate_prompts(photos, photos.parent / "p.toml", Endpoint(server.url, "m"), pause=1.5)
    assert pauses == [1.5, 3.0, 7.0, 12.0]
    server.script = [Reply(status=429, headers={"Retry-After": "86400"})]
    generate_prompts(photos, photos.parent / "q.toml", Endpoint(server.url, "m"))
    assert pauses[-1] == 120.0


def test_a_server_that_stays_away_ends_the_run_and_costs_nothing(photos: Path, server: Server) -> None:
    server.script = [Reply(json.dumps(features_of("dragon"))), *[Reply(status=503)] * ATTEMPTS]
    with pytest.raises(ModelError, match=r"asked for 'lynx' 5 times: .* HTTP 503.*goes on from there"):
        generate(photos, server)
    assert len(server.requests) == 1 + ATTEMPTS
    summary = generate(photos, server)
    assert (len(summary.written), summary.kept) == (4, ("fluffy dragon",))
    assert load_prompts(photos.parent / "p.toml").classes[0].features == tuple(features_of("dragon"))


def test_nobody_listens(photos: Path, server: Server) -> None:
    url = server.url
    server.server_close()
    with pytest.raises(ModelError, match="cannot be reached"):
        generate_prompts(photos, photos.parent / "p.toml", Endpoint(url, "m", timeout=1), pause=0)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(status=401, body=f"wrong key: {KEY}".encode()), r"HTTP 401 \(wrong key: \*\*\*\).*CLIPAUDIT_API_KEY"),
        (Reply(status=404, body=b"no such model"), r"HTTP 404 \(no such model\)\. Is the URL"),
        (Reply(status=302, body=b"", headers={"Location": "http://127.0.0.1:1/"}), "HTTP 302: it points elsewhere"),
    ],
)
def test_a_refusal_is_final(
    photos: Path, server: Server, monkeypatch: pytest.MonkeyPatch, reply: Reply, message: str
) -> None:
    monkeypatch.setenv("CLIPAUDIT_API_KEY", KEY)
    server.script = [reply]
    with pytest.raises(ModelError, match=message) as raised:
        generate(photos, server)
    assert KEY not in str(raised.value)
    assert len(server.requests) == 1


# Servers that leak, drip and flood

LONG_KEY = "sk-proj-" + "".join(f"{number:02x}" for number in range(7, 32))


@pytest.mark.parametrize(
    "said",
    [
        "x" * 180 + LONG_KEY,
        "x" * 195 + LONG_KEY[:39],
        " " * 60_000 + "wrong key " + LONG_KEY,
        f"wrong key {LONG_KEY[:20]}\n  {LONG_KEY[20:]}",
        json.dumps({"error": LONG_KEY}).replace("-", "\\u002d"),
        f"Bearer {LONG_KEY}, {LONG_KEY}",
        LONG_KEY[::2] + LONG_KEY[3:40],
    ],
)
@pytest.mark.parametrize("status", [401, 503, 418])
def test_no_part_of_the_key_is_shown(
    photos: Path, server: Server, monkeypatch: pytest.MonkeyPatch, said: str, status: int
) -> None:
    monkeypatch.setenv("CLIPAUDIT_API_KEY", LONG_KEY)
    server.script = [Reply(status=status, body=said.encode())] * ATTEMPTS
    with pytest.raises(ModelError) as raised:
        generate(photos, server)
    shown = "".join(str(raised.value).replace("\\u002d", "-").split())
    assert not any(LONG_KEY[start : start + 8] in shown for start in range(len(LONG_KEY) - 7))


def test_a_status_line_with_the_key_is_masked(photos: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPAUDIT_API_KEY", LONG_KEY)
    server.script = [Reply(stream=[f"you sent {LONG_KEY}\r\n\r\n".encode()]) for _ in range(ATTEMPTS)]
    with pytest.raises(ModelError, match=r"cannot be reached .*you sent \*\*\*"):
        generate(photos, server)


@pytest.mark.parametrize(
    "answer",
    [
        json.dumps([*features_of("dragon", 7), f"has {LONG_KEY}"]),
        json.dumps([*features_of("dragon", 7), f"has {LONG_KEY[10:40]}"]),
        json.dumps([*features_of("dragon", 7), f"has {LONG_KEY}"]).replace("sk-", "\\u0073k\\u002d"),
        f"Your key is {LONG_KEY}. {json.dumps(features_of('dragon'))}",
    ],
)
def test_an_answer_with_the_key_is_refused(
    photos: Path, server: Server, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    monkeypatch.setenv("CLIPAUDIT_API_KEY", LONG_KEY)
    server.script = [Reply(answer)]
    with pytest.raises(ModelError, match="answered with the key that it was sent"):
        generate(photos, server)
    assert [entry.features for entry in load_prompts(photos.parent / "p.toml").classes] == [()] * 5
    assert len(server.requests) == 1


def test_a_key_that_is_no_secret_may_be_a_word_of_an_answer(
    photos: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPAUDIT_API_KEY", "marks")
    assert len(generate(photos, server).written) == 5


def dripping(start: bytes, piece: bytes) -> Iterator[bytes]:
    yield start
    for _ in range(2_000):
        time.sleep(0.02)
        yield piece


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n", b" "),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 5000\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\n", b"X-More: yes\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"H"),
    ],
)
def test_the_timeout_is_for_the_whole_answer(server: Server, start: bytes, piece: bytes) -> None:
    server.script = [Reply(stream=dripping(start, piece))]
    started = time.monotonic()
    with pytest.raises(NoAnswerError):
        Endpoint(server.url, "m", timeout=0.4).answer([{"role": "user", "content": 'of the class "lynx"'}])
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\n\r\n", *[b"[" * 1_000_000] * 50],
        [b"HTTP/1.1 200 OK\r\n", *[b"X-More: " + b"x" * 60_000 + b"\r\n"] * 500],
        [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", gzip.compress(b" " * 50_000_000)],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n", b"{}"],
    ],
)
def test_a_flood_is_not_swallowed(server: Server, pieces: list[bytes]) -> None:
    server.script = [Reply(stream=pieces)]
    tracemalloc.start()
    with pytest.raises(NoAnswerError):
        Endpoint(server.url, "m").answer([{"role": "user", "content": 'of the class "lynx"'}])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30_000_000


def test_classes_that_fail_are_listed(photos: Path, tmp_path: Path, server: Server) -> None:
    server.script = [Reply("\x1b[2J no")] * ATTEMPTS
    words = ("generate", photos, "--out", tmp_path / "p.toml", "--endpoint", server.url, "--llm", "m")
    result = run(*words)
    assert result.exit_code == 1
    assert re.search("fluffy dragon: .*no JSON list", result.stdout)
    assert "4 classes got features" in result.stdout
    assert "\x1b" not in result.output
    again = run(*words)
    assert again.exit_code == 0
    assert "1 classes got features" in again.stdout


def test_what_a_person_wrote_stays(photos: Path, server: Server) -> None:
    file = photos.parent / "p.toml"
    edited = (
        "# my own words\nname = 'mine'  # short\ntemplate = 'A {name} that {feature}!'\n\n"
        "[[classes]] # first\nname = 'Wolf'\nfeatures = ['howls'] # only one\n\n"
        "[[ classes ]]\nfeatures = [ # none yet\n  ]\nname = 'lynx'\naliases = ['bobcat'] # a kind of lynx\n\n"
        "[[classes]]\nname = 'unicorn' # not in the data\n"
    )
    file.write_text(edited)
    summary = generate(photos, server)
    assert (len(summary.written), summary.kept) == (4, ("Wolf",))
    text = file.read_text()
    for line in edited.splitlines():
        assert line in text or line in ("features = [ # none yet", "  ]")
    held = {entry.name: entry for entry in load_prompts(file).classes}
    assert list(held) == ["Wolf", "lynx", "unicorn", "fluffy dragon", "red fox", "sea cow"]
    assert held["Wolf"].features == ("howls",)
    assert held["unicorn"].features == ()
    assert held["lynx"] == PromptClass("lynx", ("bobcat",), tuple(features_of("lynx")))
    assert '"A lynx that ___!"' in server.requests[1]["messages"][1]["content"]


@dataclass
class Scripted:
    """A language model that does something before it answers well."""

    before: Callable[[str], None]

    def answer(self, messages: Sequence[Message]) -> str:
        name = asked_class(messages)
        self.before(name)
        return json.dumps(features_of(name))


def test_an_edit_while_the_model_thinks_stays(photos: Path) -> None:
    file = photos.parent / "p.toml"

    def edit(name: str) -> None:
        if name == "lynx":
            file.write_text(
                file.read_text().replace('"lynx"\naliases = []\nfeatures = []', '"lynx"\nfeatures = ["sits"]')
            )

    generate_prompts(photos, file, Scripted(edit))
    assert {entry.name: entry.features for entry in load_prompts(file).classes}["lynx"] == ("sits",)


def test_an_interrupted_run_goes_on(photos: Path) -> None:
    file, asked = photos.parent / "p.toml", []

    def interrupt(name: str) -> None:
        if name == "red fox" and not asked.count(name):
            asked.append(name)
            raise KeyboardInterrupt
        asked.append(name)

    with pytest.raises(KeyboardInterrupt):
        generate_prompts(photos, file, Scripted(interrupt))
    assert [len(entry.features) for entry in load_prompts(file).classes] == [8, 8, 0, 0, 0]
    generate_prompts(photos, file, Scripted(interrupt))
    assert asked == ["fluffy dragon", "lynx", "red fox", "red fox", "sea cow", "wolf"]
    assert check_prompts(file).findings == ()
    assert [path.name for path in photos.parent.iterdir() if path.suffix == ".tmp"] == []


def test_answers_are_cleaned() -> None:
    others = PromptSet("s", "", "A photo of {name}, which {feature}.", (PromptClass("cat", (), ("has soft fur",)),))
    answer = (
        '<think>["is a draft", "is another"]</think>Here you are [1]:\n```json\n'
        '["1. Has red ears.", "- which is big", "* \\"shows teeth\\"", "has  soft fur", "has soft fur",'
        ' "stands in snow;", "wears a collar", "That carries prey", "black stripes"]\n```\nAnything else?'
    )
    with pytest.raises(PromptError, match="doubled ones") as raised:
        parse_features(answer.replace('"wears a collar"', '"is big"'), others, PromptClass("lynx"))
    for fault in ("'has soft fur' is there already", "'black stripes' does not start with a verb"):
        assert fault in str(raised.value)
    good = ("has red ears", "is big", "shows teeth", "stands in snow", "wears a collar", "carries prey")
    assert parse_features(answer, others, PromptClass("lynx")) == good


def test_the_instruction_can_be_seen_without_sending(photos: Path, tmp_path: Path, server: Server) -> None:
    result = run("generate", photos, "--out", tmp_path / "p.toml", "--show-instruction", "--features", 6)
    assert result.exit_code == 0, result.output
    messages = first_instruction(photos, tmp_path / "p.toml", n_features=6)
    assert messages[1]["content"] in result.stdout
    assert "Write 6 short visual features" in messages[1]["content"]
    assert not (tmp_path / "p.toml").exists()
    generate(photos, server)
    assert "nothing is sent" in run("generate", photos, "--out", tmp_path / "p.toml", "--show-instruction").stdout


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ((), UsageError, "name a language model"),
        (("--llm", "x" * 300), ModelError, "no folder of a language model"),
        (("--llm", "nowhere"), ModelError, "no folder of a language model"),
        (("--llm", "m", "--endpoint", "file:///etc/passwd"), UsageError, "no http or https URL"),
        (("--llm", "m", "--endpoint", "http://[host/v1"), UsageError, "no http or https URL"),
        (("--llm", "m", "--endpoint", "http://host:x/v1"), UsageError, "no http or https URL"),
        (("--llm", "m", "--endpoint", "http://host/v\xb9"), UsageError, "no http or https URL"),
        (("--llm", "m", "--endpoint", "http://me:pass@host/v1"), UsageError, "must not hold a password"),
        (("--llm", "m", "--endpoint", "http://host/v1", "--timeout", "0"), UsageError, "above 0 seconds"),
        (("--llm", "m", "--endpoint", "http://host/v1", "--timeout", "-1"), UsageError, "at most 86,400"),
        (("--llm", "m", "--endpoint", "http://host/v1", "--timeout", "nan"), UsageError, "at most 86,400"),
        (("--llm", "m", "--endpoint", "http://host/v1", "--timeout", "inf"), UsageError, "at most 86,400"),
        (("--llm", "m", "--endpoint", "http://host/v1", "--features", "11"), UsageError, "6 to 10 features"),
        (("--llm", "m", "--timeout", "5"), UsageError, "--timeout is only for an --endpoint"),
        (("--llm", "m", "--endpoint", "http://host/v1", "--device", "cpu"), UsageError, "--device is only for a local"),
        (("--llm", "m", "--endpoint", "ftp://host/v1"), UsageError, "no http or https URL"),
        (("--llm", "m", "--endpoint", ""), UsageError, "no http or https URL"),
        (("--llm", "m", "--endpoint", f"http://{'a' * 64}.com/v1"), UsageError, "no http or https URL"),
        (("--llm", "m", "--endpoint", "http://a..b/v1"), UsageError, "no http or https URL"),
        (("--llm", "m", "--endpoint", "http://host/v1", "--features", "3"), UsageError, "6 to 10 features"),
    ],
)
def test_mistakes_are_explained(
    photos: Path, tmp_path: Path, words: tuple[str, ...], error: type[ClipAuditError], message: str
) -> None:
    result = run("generate", photos, "--out", tmp_path / "p.toml", *words)
    assert isinstance(result.exception, error)
    assert message in str(result.exception)
    assert not (tmp_path / "p.toml").exists()


def test_a_key_that_is_none_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPAUDIT_API_KEY", "sk-\nX-Injected: yes")
    with pytest.raises(UsageError, match="characters that no key has") as raised:
        Endpoint("http://host/v1", "m")
    assert "Injected" not in str(raised.value)


@pytest.fixture(scope="module")
def tiny_language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model: real files, real generation, nonsense answers."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("llm")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(["<end>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)
    config = GPT2Config(
        vocab_size=len(vocabulary), n_positions=8192, n_embd=8, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("chat", [False, True])
def test_a_local_model_that_talks_nonsense(photos: Path, tmp_path: Path, tiny_language_model: Path, chat: bool) -> None:
    folder = shutil.copytree(tiny_language_model, tmp_path / "model")
    if chat:
        template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
        (folder / "chat_template.jinja").write_text(template)
    model = LocalModel(folder, device="cpu", max_new_tokens=20)
    assert model.answer([{"role": "user", "content": "say"}]) == model.answer([{"role": "user", "content": "say"}])
    summary = generate_prompts(photos, tmp_path / "p.toml", model)
    assert [outcome.fault for outcome in summary.failed] == ["the answer holds no JSON list of strings"] * 5
    assert [entry.features for entry in load_prompts(tmp_path / "p.toml").classes] == [()] * 5


def test_a_local_model_that_reads_too_little(photos: Path, tmp_path: Path, tiny_language_model: Path) -> None:
    model = LocalModel(tiny_language_model, device="cpu")
    with pytest.raises(ModelError, match="more than the 8192"):
        model.answer([{"role": "user", "content": "x" * 8000}])
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be loaded"):
        LocalModel(tmp_path, device="cpu")

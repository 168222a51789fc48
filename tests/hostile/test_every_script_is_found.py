"""Full text finds any part of a text in scripts without blanks, alike on both databases."""

import asyncio
import itertools
import random
from pathlib import Path
from runpy import run_path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secateur.runtime.ledger import connect, erasing
from secateur.runtime.ledger.ledger import Ledger
from secateur.runtime.ledger.reading.audit import AuditLog
from secateur.runtime.ledger.search import index as passages
from secateur.runtime.ledger.search.words import Passage, Words, plain

_shared = run_path(str(Path(__file__).parents[1] / "ledger" / "conftest.py"))
ask, make, postgres = _shared["ask"], _shared["make"], _shared["postgres"]
new_in_sqlite, new_in_postgres = _shared["new_in_sqlite"], _shared["new_in_postgres"]
sqlite_url, postgres_url = _shared["sqlite_url"], _shared["postgres_url"]
ledger_url = _shared["ledger_url"]

SAID = {
    "chinese": "请重启网站服务",
    "wrapped": "请重\n启网\r\n 站服务",
    "apart": "重。启",
    "mixed": "用nginx 1.25重启web服务器,第3章的API接口。",
    "traditional": "請重新啟動網站服務",
    "japanese": "サーバーを再起動してください。ﾃﾞｰﾀﾍﾞｰｽも確認します",
    "thai": "กรุณาเริ่มระบบเว็บเซิร์ฟเวอร์ใหม่และตรวจสอบ",
    "khmer": "សូមចាប់ផ្តើម\u200bម៉ាស៊ីនមេ\u200bឡើងវិញ",
    "lao": "ກະລຸນາເລີ່ມເຊີບເວີໃໝ່",
    "burmese": "ဝန်ဆောင်မှုကို ပြန်လည်စတင်ပါ။",
    "korean": "웹서버를 재시작했습니다",
    "spaced": "웹 서버 재시작",
    "rare": "𠮷野家で𩸽を食べる",
    "english": "restart the web service",
    "russian": "перезапустить веб-сервер",
}

ASKED = {
    "重启": {"chinese", "wrapped", "mixed"},
    "启": {"chinese", "wrapped", "mixed", "apart"},
    "请重启网站服务": {"chinese", "wrapped"},
    "启网站": {"chinese", "wrapped"},
    "网站 重启": {"chinese", "wrapped"},
    "重启服务": set(),
    '"重启 网站"': {"chinese", "wrapped"},
    "务": {"chinese", "wrapped", "mixed"},
    "nginx": {"mixed"},
    "重启web服务": {"mixed"},
    "重启web": {"mixed"},
    "启web服": {"mixed"},
    "25重启": {"mixed"},
    "第3章": {"mixed"},
    "3章": {"mixed"},
    "API": {"mixed"},
    "API接口": {"mixed"},
    "ngin": set(),
    "重新啟動": {"traditional"},
    "再起動": {"japanese"},
    "サーバー": {"japanese"},
    "データベース": {"japanese"},
    "タペ": set(),
    "ｻｰﾊﾞｰ": {"japanese"},
    "เว็บ": {"thai"},
    "ระบบ": {"thai"},
    "เซิร์ฟเวอร์": {"thai"},
    "ម៉ាស៊ីន": {"khmer"},
    "ចាប់ផ្តើមម៉ាស៊ីន": {"khmer"},
    "ເຊີບເວີ": {"lao"},
    "ပြန်လည်": {"burmese"},
    "재시작": {"korean", "spaced"},
    "시작": {"korean", "spaced"},
    "서버": {"korean", "spaced"},
    "서": {"korean", "spaced"},
    "설": set(),
    "했습니다": {"korean"},
    "𠮷野": {"rare"},
    "𩸽": {"rare"},
    "web": {"english", "mixed"},
    "сервер": {"russian"},
    "серв": set(),
}
"""Queries, and whose texts they are in."""


def write(make, url: str, texts: dict[str, str]) -> str:
    async def tell() -> str:
        async with Ledger.open(url) as ledger:
            log = await ledger.start(make.start())
            for number, (id, text) in enumerate(texts.items()):
                judged = make.judged(id, make.evidence(), index=number, text=text, parents=())
                await log.intend(make.intent(id))
                await log.judge(judged)
            return log.run

    return asyncio.run(tell())


def index(url: str) -> None:
    engine = connect.open_existing(url, read_only=False)
    passages.rebuild(engine)
    engine.dispose()


def unindex(url: str) -> None:
    engine = connect.open_existing(url, read_only=False)
    with engine.begin() as connection:
        passages._clear(connection)
    engine.dispose()


def found(url: str, text: str, **filters) -> set[str]:
    with AuditLog(url) as audit:
        return {row.thought for row in audit.search(text, limit=None, **filters)}


def test_a_part_of_a_text_is_found_with_and_without_the_index(ledger_url, make) -> None:
    write(make, ledger_url, SAID)
    for prepare in (unindex, index):
        prepare(ledger_url)
        for asked, expected in ASKED.items():
            assert found(ledger_url, asked, field="text") == expected, (prepare, asked)


def test_it_is_found_in_what_was_written_or_in_what_was_asked(ledger_url, make) -> None:
    write(make, ledger_url, SAID)
    index(ledger_url)
    assert found(ledger_url, "重启", field="text") == ASKED["重启"]
    assert found(ledger_url, "重启", field="prompt") == set()
    assert found(ledger_url, "启", field="prompt") == set()


def test_it_is_found_at_the_end_of_long_texts(ledger_url, make) -> None:
    rng = random.Random(1)
    signs = [chr(code) for code in range(0x4E00, 0x5200)]
    long = {
        "common": "的是了" * 15_000 + "请重启网站服务",
        "varied": "".join(rng.choices(signs, k=28_000)) + "。请重启网站服务",
        "words": "the web server is up and " * 3_000 + " please restart heliotrope now",
        "other": "".join(rng.choices(signs, k=28_000)),
    }
    write(make, ledger_url, long)
    for prepare in (unindex, index):
        prepare(ledger_url)
        for asked in ("重启", "请重启网站", "启网站服务", '"请重启网站服务"'):
            assert found(ledger_url, asked) == {"common", "varied"}, (prepare, asked)
        assert found(ledger_url, '"please restart heliotrope"') == {"words"}
        assert found(ledger_url, '"server is up"') == {"words"}


def test_what_is_shown_is_where_it_stands(ledger_url, make) -> None:
    around, accents, jamo = "前后左右" * 60, "e\u0301" * 300, "\u1112\u1161\u11ab" * 200
    texts = {
        "cjk": f"{around}请重启网站服务{around}",
        "decomposed": f"{accents} 重启 {'ﬃ' * 300}",
        "latin": f"{'ça va ' * 100}ÜBERPRÜFT am Ende {'très ' * 100}",
        "jamo": f"{jamo}재시작{jamo}",
    }
    write(make, ledger_url, texts)
    asked = {"重启": {"cjk", "decomposed"}, "überprüft": {"latin"}, "재시작": {"jamo"}, "启": None}
    with AuditLog(ledger_url) as audit:
        for query, expected in asked.items():
            rows = audit.search(query, field="text")
            assert rows
            assert expected is None or {row.thought for row in rows} == expected
            for row in rows:
                assert row.excerpt is not None
                assert query.casefold() in row.excerpt.casefold(), row.excerpt
                assert 100 < len(row.excerpt) < 150


def test_an_index_of_the_first_version_is_not_asked_and_made_anew(ledger_url, make, ask) -> None:
    run = write(make, ledger_url, SAID)
    as_before(ledger_url, run)
    assert found(ledger_url, "重启") == ASKED["重启"]
    assert found(ledger_url, "nginx") == {"mixed"}
    write(make, ledger_url, {"later": "稍后重启"})  # a writer makes the index anew as it goes on
    left = ask(ledger_url, "SELECT count(*) FROM passage_mark WHERE upto < 0")
    assert left == [(0,)]
    for asked, expected in ASKED.items():
        assert found(ledger_url, asked, field="text") - {"later"} == expected, asked
    assert "later" in found(ledger_url, "重启")


def test_a_text_in_an_index_of_the_first_version_is_erased_from_it(ledger_url, make, ask) -> None:
    run = write(make, ledger_url, SAID)
    as_before(ledger_url, run)
    erase(ledger_url, run, "russian")
    assert found(ledger_url, "перезапустить") == set()
    assert found(ledger_url, "restart") >= {"english"}
    table = "passage_words" if "://" in ledger_url else "passage_words_data"
    column = "words::text" if "://" in ledger_url else "block"
    left = str(ask(ledger_url, f"SELECT {column} FROM {table}"))
    assert plain("перезапустить") not in left
    index(ledger_url)
    assert found(ledger_url, "重启") == ASKED["重启"]


def erase(url: str, run: str, thought: str) -> None:
    engine = connect.open_existing(url)
    with engine.connect() as connection:
        (wanted,) = erasing.find(connection, thought, run=run)
    engine.dispose()
    asyncio.run(erasing.erase(url, wanted, by="a person", reason="asked for"))


def as_before(url: str, run: str) -> None:
    """Index a run as version 0.1 did: each run of letters a word, and no note of a rule."""
    engine = connect.open_existing(url, read_only=False)
    with engine.begin() as connection:
        passages._clear(connection)
        number = passages._RULE_NUMBER
        if "://" in url:
            connection.exec_driver_sql(f"DELETE FROM passage_words WHERE number = {number}")
        else:
            connection.exec_driver_sql(
                "INSERT INTO passage_words (passage_words) VALUES ('delete-all')"
            )
        mark = "%s" if "://" in url else "?"
        words = "'{}':1A" if "://" in url else "{}"
        for place, (id, text) in enumerate(SAID.items(), 1):
            spelt = "".join(c if c.isascii() else f"x{ord(c):x}x" for c in text if c.isalnum())
            connection.exec_driver_sql(
                f"INSERT INTO passage VALUES ({mark}, {mark}, {mark})", (place, run, id)
            )
            columns = "number, words" if "://" in url else "rowid, text"
            cast = "::tsvector" if "://" in url else ""
            connection.exec_driver_sql(
                f"INSERT INTO passage_words ({columns}) VALUES ({mark}, {mark}{cast})",
                (place, words.format(spelt or "x")),
            )
        last = f"(SELECT max(seq) FROM event WHERE run_id = '{run}')"
        connection.exec_driver_sql(
            f"UPDATE passage_mark SET upto = {last}, settled = true WHERE run_id = '{run}'"
        )
    engine.dispose()


SIGNS = "重启网站服务请ระบบเว็ប់ម៉ाກະຂ서버재시작한サーバがｶﾞ𠮷々ーa1 \n。,.\u200bé\u0301ß"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(SIGNS, max_size=60), st.data())
def test_every_part_of_a_text_without_blanks_matches_it(text: str, data) -> None:
    signs = [place for place, sign in enumerate(text) if sign >= "\u0e00" and sign.isalpha()]
    if not signs:
        return
    start = data.draw(st.sampled_from(signs))
    end = start + 1
    while end < len(text) and text[end] >= "\u0e00" and text[end].isalpha():
        end += 1
    end = data.draw(st.integers(start + 1, end))
    if end < len(text) and text[end] in "\u0301ﾞ":  # it changes the sign before it
        return
    part = text[start:end]
    words = Words.of(part)
    assert words.match(Passage("r", "t", "", text, "")), (part, text)
    place = words.first(text)
    assert place is not None
    assert 0 <= place[0] < place[1] <= len(text)


def test_no_query_makes_an_index_stumble_over_signs(ledger_url, make) -> None:
    write(make, ledger_url, SAID)
    index(ledger_url)
    strange = (
        "重",
        "重启",
        "*",
        '"',
        "'",
        "a",
        "ー",
        "\u3099",
        "\u0e31",
        "\u1161",
        "ﾞ",
        " ",
        ":",
        "&",
    )
    with AuditLog(ledger_url) as audit:
        for parts in itertools.product(strange, repeat=2):
            asked = f"启{''.join(parts)}"
            rows = audit.search(asked, limit=None)
            words = Words.of(asked)
            expected = {
                id for id, text in SAID.items() if words.match(Passage("", id, "", text, ""))
            }
            assert {row.thought for row in rows} == expected, asked


@pytest.mark.parametrize("sign", ["重", "ก", "ក", "ກ", "서", "あ", "𠮷"])
def test_a_single_sign_is_found_wherever_it_stands(ledger_url, make, sign: str) -> None:
    texts = {
        "alone": sign,
        "first": f"{sign}甲",
        "last": f"甲{sign}",
        "latin": f"a{sign}1",
        "no": "甲",
    }
    write(make, ledger_url, texts)
    index(ledger_url)
    assert found(ledger_url, sign) == {"alone", "first", "last", "latin"}

"""From two checkpoints and a corpus to measured rankings, by the real commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sentence_transformers import CrossEncoder

from mixlm_rerank import Candidate, Document, MixLM, Reranker, TokenIndex
from mixlm_rerank.data import read_qrels, read_run, read_topics
from mixlm_rerank.eval import evaluate

Command = Callable[[str], Any]
RERANK = "rerank --index tokens --model model --topics topics.tsv --run bm25.trec --output out.trec --quiet"


def ids(run: dict[str, list[Candidate]]) -> dict[str, list[str]]:
    return {qid: [hit.docid for hit in hits] for qid, hits in run.items()}


@pytest.fixture
def model(work: Path) -> MixLM:
    return MixLM.from_pretrained("model", device="cpu")


@pytest.fixture
def reranked(work: Path, model: MixLM) -> Callable[..., dict[str, list[str]]]:
    """The same by the library: ``reranked(top_k=1, tokens=2)`` -> docids of every query."""

    def rerank(top_k: int | None = None, **options: Any) -> dict[str, list[str]]:
        candidates = read_run("bm25.trec")
        found = Reranker(model, TokenIndex("tokens"), **options).rerank_batch(
            read_topics("topics.tsv"), candidates, top_k
        )
        return {qid: [doc.docid for doc in docs] for qid, docs in found.items()}

    return rerank


def test_every_command_says_what_it_made(gone: tuple[Path, dict[str, Any]]) -> None:
    assert all(done.out == "" for done in gone[1].values())  # stdout is for what can be piped on
    said = {command: done.err for command, done in gone[1].items()}
    assert "model: untrained; item encoder " in said["model init"] and "up to 4 embedding tokens" in said["model init"]
    assert said["bm25 index"].endswith("lucene: 6 documents\n")
    assert said["bm25 search"].endswith(" candidates of 4 queries\n")
    assert "\ntokens: 6 documents, " in said["index build"]
    assert "tokens: 6 documents, about" in said["index build"]  # the estimate, before the work


def test_bm25_writes_a_trec_run(work: Path) -> None:
    lines = [line.split() for line in Path("bm25.trec").read_text().splitlines()]
    assert {(len(line), line[1], line[5]) for line in lines} == {(6, "Q0", "bm25")}
    run = ids(read_run("bm25.trec"))
    assert run["q1"][0] == "d1" and run["d4"][0] == "d4"
    assert list(run) == ["q1", "q2", "d4"]  # nothing matches q3


def test_bm25_can_keep_to_judged_queries_and_drop_the_query_itself(work: Path, mixlm: Command) -> None:
    done = mixlm("bm25 search lucene --topics topics.tsv --qrels qrels.txt --hits 1 --drop-same-id --output own.trec")
    assert done.code == 0
    assert ids(read_run("own.trec")) == {"q1": ["d1"], "q2": ["d6"], "d4": ["d6"]}


def test_rerank_writes_what_the_library_ranks(
    work: Path, mixlm: Command, reranked: Callable[..., dict[str, list[str]]]
) -> None:
    done = mixlm(RERANK)
    before, after = ids(read_run("bm25.trec")), ids(read_run("out.trec"))
    assert (done.code, done.out) == (0, "")
    assert done.err == f"out.trec: {sum(map(len, before.values()))} documents of 3 queries\n"
    assert after == reranked()
    assert {qid: set(found) for qid, found in after.items()} == {qid: set(found) for qid, found in before.items()}
    assert after != before


@pytest.mark.parametrize(
    ("options", "warned"), [("--top-k 4", True), ("--depth 2 --top-k 2", True), ("--top-k 1", False)]
)
def test_a_ranking_that_finds_no_other_documents_is_warned_of(
    work: Path, mixlm: Command, options: str, warned: bool
) -> None:
    said = mixlm(f"{RERANK} {options}")
    assert said.code == 0 and ("only their order changes, not which documents are found" in said.err) == warned


@pytest.mark.parametrize(
    "options", [{"tokens": 1}, {"top_k": 2}, {"first_stage_weight": 0.7}, {"first_stage_weight": "rrf"}]
)
def test_options_are_those_of_the_library(
    work: Path, mixlm: Command, reranked: Callable[..., dict[str, list[str]]], options: dict[str, Any]
) -> None:
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in options.items())
    assert mixlm(f"{RERANK} {flags}").code == 0
    assert ids(read_run("out.trec")) == reranked(**options)


def test_with_all_the_weight_on_the_first_stage_its_order_stays(work: Path, mixlm: Command) -> None:
    mixlm(f"{RERANK} --first-stage-weight 1")
    assert ids(read_run("out.trec")) == ids(read_run("bm25.trec"))


def test_depth_cuts_before_ranking(work: Path, mixlm: Command) -> None:
    assert mixlm(f"{RERANK} --depth 2").code == 0
    first = {qid: set(found[:2]) for qid, found in ids(read_run("bm25.trec")).items()}
    assert {qid: set(found) for qid, found in ids(read_run("out.trec")).items()} == first


@pytest.mark.parametrize("texts", ["corpus.jsonl", "lucene:lucene"])
def test_verify_top_reads_the_best_in_full(
    work: Path, mixlm: Command, reranked: Callable[..., dict[str, list[str]]], documents: list[Document], texts: str
) -> None:
    contents = {document.docid: document.content for document in documents}
    assert mixlm(f"{RERANK} --verify-top 3 --texts {texts}").code == 0
    verified, plain = ids(read_run("out.trec")), reranked()
    assert verified == reranked(verify_top=3, texts=contents)
    assert {qid: found[3:] for qid, found in verified.items()} == {qid: found[3:] for qid, found in plain.items()}


def test_the_users_own_cross_encoder_reads_the_best(
    work: Path,
    mixlm: Command,
    reranked: Callable[..., dict[str, list[str]]],
    documents: list[Document],
    cross_encoder: Callable[..., Path],
) -> None:
    judge, contents = str(cross_encoder()), {document.docid: document.content for document in documents}
    assert mixlm(f"{RERANK} --verify-top 3 --verify-with {judge} --texts corpus.jsonl").code == 0
    found = ids(read_run("out.trec"))
    assert found == reranked(verify_top=3, verify_with=CrossEncoder(judge), texts=contents) != reranked()
    search = "search --index lucene --token-index tokens --model model --topics topics.tsv --quiet --output"
    assert mixlm(f"{search} searched.trec --verify-top 3 --verify-with {judge}").code == 0
    assert mixlm(f"{search} plain.trec").code == 0
    searched, plain = ids(read_run("searched.trec")), ids(read_run("plain.trec"))
    assert searched == {qid: docs for qid, docs in found.items() if docs} != plain


def test_a_token_index_is_built_from_a_lucene_index_too(work: Path, mixlm: Command) -> None:
    assert mixlm("index build lucene:lucene same --model model --quiet").code == 0
    assert mixlm(RERANK).code == 0
    tokens = Path("out.trec").read_text()
    assert mixlm(RERANK.replace("--index tokens", "--index same")).code == 0
    assert Path("out.trec").read_text() == tokens


def test_index_info_tells_size_and_identity(work: Path, mixlm: Command, model: MixLM) -> None:
    shown = mixlm("index info tokens").out
    assert "documents     6\n" in shown and f"{model.fingerprint} (model)" in shown and "corpus.jsonl" in shown
    told = json.loads(mixlm("index info tokens --json").out)
    assert told["documents"] == 6 and told["manifest"]["fingerprint"] == model.fingerprint


def test_ms_marco_runs_out_and_in(work: Path, mixlm: Command) -> None:
    assert mixlm(f"{RERANK} --format msmarco").code == 0
    lines = [line.split("\t") for line in Path("out.trec").read_text().splitlines()]
    ranks = [int(rank) for qid, _, rank in lines if qid == "q1"]
    assert ranks == list(range(1, len(ranks) + 1)) and len(ranks) > 2
    Path("out.trec").rename("msmarco.tsv")
    assert mixlm(RERANK.replace("bm25.trec", "msmarco.tsv")).code == 0
    assert ids(read_run("out.trec")) == ids(read_run("msmarco.tsv"))


def test_requests_of_rank_llm_come_back_in_their_new_order(work: Path, mixlm: Command) -> None:
    def candidate(docid: str | int, score: float, **more: Any) -> dict[str, Any]:
        return {"docid": docid, "score": score, "doc": {"contents": f"text of {docid}"}} | more

    asked = [
        {"query": {"text": "a dog", "qid": 7}, "candidates": [candidate("d2", 2, note="kept"), candidate(99, 1)]},
        {"query": {"text": "a cat", "qid": "x"}, "candidates": []},
    ]
    Path("requests.jsonl").write_text("".join(json.dumps(line) + "\n" for line in asked))
    command = "rerank --index tokens --model model --requests requests.jsonl --output out.jsonl --quiet"
    assert mixlm(command).err == "out.jsonl: 2 documents of 2 queries; 1 were not in the index and are ranked last\n"
    first, second = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert first["query"] == asked[0]["query"] and second == asked[1]
    assert [(hit["docid"], hit["doc"], hit.get("note")) for hit in first["candidates"]] == [
        ("d2", {"contents": "text of d2"}, "kept"),
        (99, {"contents": "text of 99"}, None),
    ]
    assert first["candidates"][0]["score"] > first["candidates"][1]["score"]
    assert [hit.get("missing") for hit in first["candidates"]] == [None, True]
    assert mixlm(f"{command} --missing encode --verify-top 2").err == "out.jsonl: 2 documents of 2 queries\n"


def test_init_says_that_a_cross_encoder_loses_its_head(
    work: Path, mixlm: Command, cross_encoder: Callable[..., Path], checkpoint: Callable[..., Path]
) -> None:
    lengths = "--max-query-tokens 64 --max-document-tokens 40"
    done = mixlm(f"model init new --item-encoder {checkpoint('bert')} --ranker {cross_encoder()} --offline {lengths}")
    assert done.code == 0, done.err
    assert f"ranker {cross_encoder()}, without its classification head." in done.err
    assert "To train it: mixlm-rerank distill CORPUS --teacher CROSS_ENCODER --model new" in done.err


def test_a_copy_of_a_model_reads_titles(work: Path, mixlm: Command) -> None:
    done = mixlm("model titles titled --model model --title-tokens 5")
    assert "titled: model, whose ranker reads up to 5 tokens of a title. To train it: mixlm-rerank distill" in done.err
    assert mixlm("index build corpus.jsonl titled-tokens --model titled").code == 0
    assert "\ntitles        up to 5 tokens a document\n" in mixlm("index info titled-tokens").out
    assert "titles" not in mixlm("index info tokens").out
    refused = mixlm(RERANK.replace("--model model", "--model titled"))
    assert refused.code == 2 and "Rebuild it: mixlm-rerank index build" in refused.err
    done = mixlm(RERANK.replace("--model model", "--model titled").replace("--index tokens", "--index titled-tokens"))
    assert done.code == 0, done.err
    model, run = MixLM.from_pretrained("titled"), read_run("bm25.trec")
    expected = Reranker(model, TokenIndex("titled-tokens")).rerank_batch(read_topics("topics.tsv"), run)
    assert ids(read_run("out.trec")) == {qid: [doc.docid for doc in docs] for qid, docs in expected.items()}


def test_eval_measures_over_all_judged_queries(work: Path, mixlm: Command) -> None:
    mixlm(RERANK)
    measures = ["nDCG@10", "AP(rel=2)"]
    expected = {name: evaluate(read_qrels("qrels.txt"), read_run(name), measures) for name in ("bm25.trec", "out.trec")}
    command = "eval runs bm25.trec out.trec --qrels qrels.txt -m nDCG@10 -m 'AP(rel=2)'"
    assert json.loads(mixlm(f"{command} --json").out) == {"measures": expected}
    table = mixlm(command).out.splitlines()
    assert table[0].split() == ["run", *measures]
    assert table[1].split() == ["bm25.trec", *(f"{expected['bm25.trec'][name]:.4f}" for name in measures)]
    assert table[-1] == "4 judged queries"


def test_eval_tests_against_a_baseline_and_compares_with_a_teacher(work: Path, mixlm: Command) -> None:
    mixlm(RERANK)
    command = "eval runs bm25.trec out.trec --qrels qrels.txt --baseline bm25.trec --teacher out.trec"
    told = json.loads(mixlm(f"{command} --json").out)
    (comparison,) = told["comparisons"]
    means = {name: row["nDCG@10"] for name, row in told["measures"].items()}
    assert comparison["difference"] == pytest.approx(means["out.trec"] - means["bm25.trec"])
    assert told["fidelity"]["out.trec"].pop("queries") == 3  # "zebra" has no candidates
    assert told["fidelity"]["out.trec"] == pytest.approx(dict.fromkeys(told["fidelity"]["out.trec"], 1.0))
    assert told["fidelity"]["bm25.trec"]["rank_biased_overlap"] < 1
    printed = mixlm(command).out
    assert "nDCG@10 against bm25.trec" in printed and "fidelity to out.trec" in printed
    ceiling = json.loads(mixlm("eval runs bm25.trec out.trec --qrels qrels.txt --oracle --json").out)["measures"]
    assert ceiling["oracle"]["nDCG@10"] >= max(ceiling["bm25.trec"]["nDCG@10"], ceiling["out.trec"]["nDCG@10"])
    refused = mixlm("eval runs bm25.trec --qrels qrels.txt --baseline out.trec")
    assert refused.code == 2 and "add it to them" in refused.err


def test_search_is_bm25_and_rerank_in_one_step(work: Path, mixlm: Command, model: MixLM) -> None:
    command = "search --index lucene --topics topics.tsv --token-index tokens --model model --hits 3 --quiet"
    for options in ("", "--batch-size 1 --threads 2", "--output-format msmarco"):
        done = mixlm(f"{command} --output one.txt {options}")
        assert (done.code, done.out) == (0, ""), done.err
        first = {qid: hits[:3] for qid, hits in read_run("bm25.trec").items()}
        expected = Reranker(model, TokenIndex("tokens")).rerank_batch(read_topics("topics.tsv"), first)
        assert ids(read_run("one.txt")) == {qid: [doc.docid for doc in docs] for qid, docs in expected.items()}


def test_search_by_a_name_that_pyserini_knows(work: Path, mixlm: Command) -> None:
    """It may have to fetch the topics: without a network that is said in a line, as is a name that it does not know."""
    command = "search --index lucene --token-index tokens --model model --output one.trec --quiet --topics"
    done = mixlm(f"{command} nonsense")
    assert done.code == 2 and "no file of topics at 'nonsense', and Pyserini knows no topics of that name" in done.err
    done = mixlm(f"{command} dl19-passage")
    assert done.code == 0 or "cannot fetch the topics 'dl19-passage'" in done.err or "BM25 finds nothing" in done.err
    assert "Traceback" not in done.err and "(TopicReader.java" not in done.err

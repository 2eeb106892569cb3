"""What one release writes, another one reads: documents of released versions are kept and never edited."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom_runtime.contract import bundle, canonical, config, flags, names, report

DOCUMENTS = Path(__file__).parent / "documents"
RELEASES = sorted(path.name for path in DOCUMENTS.iterdir())
versions = st.from_regex(names.VERSION_PATTERN, fullmatch=True).filter(
    lambda name: len(name) <= names.VERSION_MAX_LENGTH
)
digests = st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)
stores = st.lists(versions, min_size=1, max_size=4, unique=True).flatmap(
    lambda resident: st.builds(
        flags.FlagStore,
        production=st.sampled_from(resident),
        resident=st.just(tuple(resident)),
        previous=st.sampled_from(["", *resident]),
        digests=st.dictionaries(st.sampled_from(resident), digests),
        first=st.sampled_from(["", "pod-0"]),
    )
)


@pytest.mark.parametrize("release", RELEASES)
def test_old_configuration_is_read(release: str) -> None:
    """A pod of this release starts with the configuration that an older operator wrote."""
    read = config.parse_config((DOCUMENTS / release / "config.json").read_text())
    assert (read.name, read.namespace, read.source_uri) == ("churn", "ml", "s3://models/churn")
    assert (read.limits.concurrency, read.proof.golden, read.proof.memory_limit_bytes) == (
        64,
        "Required",
        536870912,
    )


@pytest.mark.parametrize("release", RELEASES)
def test_old_flags_are_read(release: str) -> None:
    """A pod of this release obeys the flag store that an older operator wrote, under the same revision."""
    text = (DOCUMENTS / release / "flags.json").read_text()
    read = flags.parse_flags(text)
    assert (read.production, read.resident, read.previous) == ("v2", ("v2", "v3"), "v1")
    assert (read.first, read.digests["v3"]) == ("churn-7c9d-x2x", "sha256:" + "3" * 64)
    assert read.revision == json.loads(text)["metadata"]["revision"]


@pytest.mark.parametrize("release", RELEASES)
def test_old_bundles_are_read(release: str) -> None:
    """A bundle that was packaged with an older release is served by this one."""
    directory = DOCUMENTS / release
    read = bundle.Bundle.model_validate_json((directory / "bundle.json").read_bytes())
    assert [feature.name for feature in read.signature.features] == ["age", "income", "visits", "country"]
    assert read.signature.outputs.classes == ("no", "yes")
    assert {file.path for file in read.files} == {bundle.MODEL_FILE, bundle.GOLDEN_FILE}
    lines = (directory / "golden.jsonl").read_bytes().splitlines()
    samples = [bundle.GoldenSample.model_validate_json(line) for line in lines]
    assert [sample.prediction for sample in samples] == ["yes", "yes", "no", "yes"]


@pytest.mark.parametrize("release", RELEASES)
def test_old_reports_are_read(release: str) -> None:
    """The operator of this release understands the report of an older pod."""
    read = report.PodReport.model_validate_json((DOCUMENTS / release / "report.json").read_bytes())
    assert (read.production, read.ready, read.requests) == ("v2", True, 90122)
    failed = read.version("v3")
    assert failed is not None
    assert failed.failure is not None
    assert (failed.state, failed.failure.reason) == (
        report.VersionState.FAILED,
        report.FailureReason.GOLDEN_MISMATCH,
    )


@given(store=stores)
def test_flags_survive_the_round_trip(store: flags.FlagStore) -> None:
    """What is written is read back the same, and its revision depends on the content alone."""
    text = flags.dump_flags(store)
    read = flags.parse_flags(text)
    assert set(read.resident) == set(store.resident)
    assert (read.production, read.previous, read.first) == (store.production, store.previous, store.first)
    assert dict(read.digests) == dict(store.digests)
    assert read.revision == store.revision
    assert flags.dump_flags(read) == text


@given(store=stores)
def test_flags_are_a_flagd_document(store: flags.FlagStore) -> None:
    """Flagd's rules: variants by name, a default that is one of them, scalars only in the metadata."""
    document = json.loads(flags.dump_flags(store))
    flag = document["flags"]["version"]
    assert flag["state"] == "ENABLED"
    assert flag["variants"][flag["defaultVariant"]] == store.production
    assert all(isinstance(value, str | int | float | bool) for value in document["metadata"].values())


@given(data=st.binary(max_size=64) | st.text(max_size=64))
def test_garbage_is_no_flag_store(data: bytes | str) -> None:
    """Whatever the bytes, reading ends in FlagDocumentError and nothing else."""
    with pytest.raises(flags.FlagDocumentError):
        flags.parse_flags(data)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"resident": "v9"}, "not among the resident"),
        ({"resident": "v2,V 3"}, "not a version's name"),
        ({"resident": ""}, "not among the resident"),
        ({"digests": "v2"}, "version=sha256:digest"),
        ({"digests": "v2=md5:1"}, "not sha256"),
        ({"revision": "0000"}, "the content's is"),
        ({"resident": ["v2"]}, "metadata.resident"),
    ],
)
def test_contradictions_are_refused(change: dict[str, object], words: str) -> None:
    """A document whose parts do not fit together is refused as a whole, with the part that does not."""
    document = json.loads((DOCUMENTS / "0.1" / "flags.json").read_text())
    document["metadata"] |= {"revision": "", **change}
    with pytest.raises(flags.FlagDocumentError, match=words):
        flags.parse_flags(json.dumps(document))


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_numbers_that_json_has_not_are_refused(number: str) -> None:
    """A number that no hash can be made of is refused wherever it stands, also where nobody reads it."""
    text = flags.dump_flags(flags.FlagStore(production="v1", resident=("v1",)))
    spoilt = text.replace('"metadata":{', f'"metadata":{{"theirs":{number},')
    with pytest.raises(flags.FlagDocumentError):
        flags.parse_flags(spoilt)


def test_rules_that_are_not_understood_are_not_ignored() -> None:
    """A flag with targeting of a later release is refused rather than obeyed in part."""
    document = json.loads((DOCUMENTS / "0.1" / "flags.json").read_text())
    document["flags"]["version"]["targeting"] = {"if": []}
    with pytest.raises(flags.FlagDocumentError, match="targeting"):
        flags.parse_flags(json.dumps(document))


def test_fields_of_a_newer_operator_are_part_of_the_revision() -> None:
    """An older pod obeys a newer operator's document, and names its revision as that operator does."""
    document = json.loads((DOCUMENTS / "0.1" / "flags.json").read_text())
    del document["metadata"]["revision"]
    document["metadata"]["invented_later"] = "x"
    newer = canonical.content_hash(document, length=16)
    document["metadata"]["revision"] = newer
    read = flags.parse_flags(json.dumps(document))
    assert read.revision == newer
    changed = replace(read, production="v3")
    assert flags.parse_flags(flags.dump_flags(changed)).revision == changed.revision != newer


def test_a_newer_schema_is_refused_and_newer_fields_are_not() -> None:
    """A newer operator may add fields; when an old runtime must not start it raises the schema version."""
    written = json.loads((DOCUMENTS / "0.1" / "config.json").read_text())
    assert config.parse_config(json.dumps(written | {"invented_later": 1})).name == "churn"
    with pytest.raises(config.UnsupportedConfigError, match="runtime image"):
        config.parse_config(json.dumps(written | {"schema_version": config.SCHEMA_VERSION + 1}))


def test_configurations_are_named_by_their_content() -> None:
    """Equal configurations have equal hashes, and any difference gives another."""
    one = config.RuntimeConfig(name="churn", source_uri="s3://models/churn")
    assert config.parse_config(one.to_json()) == one
    assert config.parse_config(one.to_json()).content_hash() == one.content_hash()
    assert one.model_copy(update={"drain_seconds": 6.0}).content_hash() != one.content_hash()


def test_signatures_use_each_feature() -> None:
    """A feature without a tensor, declared twice, or a column without a feature is refused."""
    written = json.loads((DOCUMENTS / "0.1" / "bundle.json").read_text())["signature"]
    for features, words in (
        ([*written["features"], {"name": "idle", "dtype": "bool"}], "no tensor takes"),
        ([*written["features"], written["features"][0]], "declared twice"),
        (written["features"][1:], "not declared"),
    ):
        with pytest.raises(ValueError, match=words):
            bundle.Signature.model_validate(written | {"features": features})

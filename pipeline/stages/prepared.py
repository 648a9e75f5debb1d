"""Cases of a run on their way through the cache: each an entry of its own, or one of many volumes of a block."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.datasets.base import Case
from pipeline.imaging.block import member_of, survey_block
from pipeline.imaging.block_store import BlockCase, BlockMeta, LoadedBlock, ingest_block, open_block
from pipeline.imaging.facts import CaseFacts
from pipeline.imaging.prepare import PrepareOptions
from pipeline.imaging.store import StoredCase, open_case
from pipeline.provenance import digest
from pipeline.records import DatasetFacts, IngestedCase

Prepared = StoredCase | BlockCase


@dataclass(frozen=True)
class Block:
    """An array of a file that holds many cases."""

    file: Path
    array: str


Blocks = dict[Block, list[tuple[Case, int]]]
"""Which cases a block holds, and where in it."""


def split_blocks(cases: Iterable[Case]) -> tuple[Blocks, list[Case]]:
    """Return the cases that share an array with others, by array, and those that have files of their own."""
    blocks: Blocks = {}
    single = []
    for case in cases:
        member = member_of(next(iter(case.images.values()))) if len(case.images) == 1 else None
        if member is None:
            single.append(case)
        else:
            blocks.setdefault(Block(member.file, member.array), []).append((case, member.index))
    return blocks, single


def survey_blocks(blocks: Blocks) -> dict[str, CaseFacts]:
    """Return case id -> facts of the cases in blocks.

    Raises:
        DataError: a block cannot be used.
    """
    found: dict[str, CaseFacts] = {}
    for block, members in blocks.items():
        found |= survey_block(block.file, block.array, {case.case_id: index for case, index in members})
    return found


def ingest_blocks(
    blocks: Blocks, survey: DatasetFacts, prepare: PrepareOptions, root: Path
) -> dict[str, dict[str, Any]]:
    """Store each block once, and return case id -> `entry`, `shape` and `index` of its record.

    Raises:
        DataError: a block cannot be used.
        ConfigError: the options would change volumes.
    """
    found: dict[str, dict[str, Any]] = {}
    for block, members in blocks.items():
        facts = survey.facts[members[0][0].case_id]
        entry = _entry(block, facts.channels["image"].sha256, prepare)
        shape = ingest_block(block.file, block.array, prepare, root / entry)
        found |= {case.case_id: {"entry": entry, "shape": shape, "index": index} for case, index in members}
    return found


def open_prepared(cache: Path, rows: Iterable[IngestedCase]) -> dict[str, Prepared]:
    """Return case id -> its prepared volume; a block is decoded once for all its cases.

    Raises:
        DataError: an entry of the cache is damaged.
    """
    blocks: dict[str, LoadedBlock] = {}
    opened: dict[str, Prepared] = {}
    for row in rows:
        case_id, folder = row.case.case_id, cache / "cases" / row.entry
        if row.index is None:
            opened[case_id] = open_case(folder)
            continue
        if row.entry not in blocks:
            blocks[row.entry] = open_block(folder)
        opened[case_id] = BlockCase(case_id, blocks[row.entry], row.index)
    return opened


def blocks_of(opened: Mapping[str, Prepared]) -> list[BlockCase]:
    """Return those of some opened cases that are volumes of blocks."""
    return [case for case in opened.values() if isinstance(case, BlockCase)]


def _entry(block: Block, sha256: str, prepare: PrepareOptions) -> str:
    """Name the entry of a block by everything that decides its content."""
    made_by = [BlockMeta.model_fields["format"].default, sha256, block.array, json.loads(prepare.model_dump_json())]
    return f"{block.file.stem}-{block.array}-{digest(made_by)[:16]}"

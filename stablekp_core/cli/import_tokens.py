"""The command `import-tokens`: take over tokens that the authors of the paper published."""

from __future__ import annotations

import argparse

from ..errors import KeypointError
from .arguments import path
from .outputs import Output, check_outputs


def add_parser(commands) -> argparse.ArgumentParser:
    """The arguments of the command."""
    from ..evaluation.datasets import BUILT_IN, DATASETS

    p = commands.add_parser("import-tokens", help="take over tokens that the authors of the paper published")
    p.add_argument("embedding", type=path, help="their embedding.pt")
    p.add_argument("output", type=path, help="the .safetensors file to write")
    p.add_argument("--indices", type=path, required=True, help="their indices.pt, the tokens chosen as keypoints")
    p.add_argument(
        "--regressor",
        type=path,
        help="their regressor.pt; becomes a landmark map beside OUTPUT, ..._landmarks.safetensors",
    )
    p.add_argument(
        "--dataset",
        choices=[name for name in DATASETS if name not in (*BUILT_IN, "folder")],
        help="what they were trained on; says how the regressor's landmarks are ordered and called",
    )
    return p


def run(args: argparse.Namespace) -> None:
    """Read the authors' files, write tokens and a landmark map."""
    if args.dataset and not args.regressor:
        raise KeypointError("--dataset says how the regressor's landmarks are ordered; give --regressor with it.")
    tokens_output = Output(args.output, "tokens")
    beside = tokens_output.file.with_name(f"{tokens_output.file.stem}_landmarks.safetensors")
    check_outputs(
        [tokens_output, Output(beside, "landmark map") if args.regressor else None],
        [args.embedding, args.indices, args.regressor],
    )
    from ..keypoints.published_tokens import read_published_tokens
    from ..pose.published_map import read_published_map

    tokens = read_published_tokens(args.embedding, args.indices)
    landmarks = read_published_map(args.regressor, tokens.names, args.dataset) if args.regressor else None
    print(f"tokens: {tokens.save(args.output)} ({tokens.num_keypoints} keypoints; detect with --preset reference)")
    if landmarks is not None:
        print(f"landmark map: {landmarks.save(beside)} ({len(landmarks.names)} landmarks)")

"""The commands `convexnn-bench prove` and `convexnn-bench verify`: proofs in files, and their check."""

from typing import Annotated

import typer

from convexnn_bench.cli.common import plain_errors


def prove(
    problem: Annotated[str, typer.Argument(metavar="PROBLEM.npz", help="Problem, as problem.save writes it.")],
    result: Annotated[str, typer.Argument(metavar="RESULT.npz", help="Result, as result.save writes it.")],
    out: Annotated[str, typer.Option(metavar="PROOF.json.gz", help="File of the proof.")],
    scope: Annotated[
        str | None, typer.Option(help="Program of the bound: 'sampled' or 'complete' patterns of a ReLU network.")
    ] = None,
) -> None:
    """Prove the gap of a result in exact arithmetic, and write the proof to a file.

    Anybody can check the file with verify_proof.py, which needs Python alone. The exit code is 0, 1 if no file could be
    written, or 2 if a file cannot be read or no proof can be made.
    """
    with plain_errors():
        from convexnn_bench.problem import load_problem
        from convexnn_bench.proofs import prove as make_proof
        from convexnn_bench.running import load_result
        from convexnn_bench.terminal import in_bytes

        proof = make_proof(load_problem(problem), load_result(result), scope)
        file = proof.save(out)
        typer.echo(f"{proof!r}\nproof   {file} ({in_bytes(file.stat().st_size)})")


def verify(
    proof: Annotated[str, typer.Argument(metavar="PROOF.json.gz", help="Proof, as prove writes it.")],
    problem: Annotated[
        str, typer.Argument(metavar="PROBLEM.npz", help="Problem, as problem.save writes it, or its data as .csv.")
    ],
) -> None:
    """Verify a proof in exact arithmetic, and print its statement.

    The exit code is 0, or 1 if something does not hold, which is named on stderr. `python verify_proof.py` does the
    same without this package.
    """
    with plain_errors():
        from convexnn_bench.errors import ProofError
        from convexnn_bench.proofs import verify_files

        try:
            typer.echo(verify_files(proof, problem), nl=False)
        except ProofError as error:
            typer.echo(f"NOT VERIFIED: {error}", err=True)
            raise typer.Exit(1) from error

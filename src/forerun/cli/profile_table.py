"""Profiles of calls as text."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from forerun.cli.tables import make_table, print_table

if TYPE_CHECKING:
    from forerun.cli.profile import CallProfile, Share

NUMBERS = ("ms", "share", "waits ms", "MB", "GB/s", "over floor ms")
BAR_WIDTH = 12
BLOCKS = " ▏▎▍▌▋▊▉█"


def print_profiles(profiles: "Sequence[CallProfile]") -> None:
    """Two tables for each call: by kernel, largest first, and by layer."""
    for profile in profiles:
        print("\n".join(("", *headline(profile), "")))
        largest = max(share.share for share in (*profile.kernels, *profile.layers))
        rows = [
            [share.module, share.name, bar(share.share / largest), str(share.layers), *numbers(share)]
            for share in profile.kernels
        ]
        rows.append(core_row(profile, largest))
        print_table(make_table(("module", "kernel", "", "layers", *NUMBERS), rows, text_columns=3))
        print()
        layers = [[share.name, bar(share.share / largest), *numbers(share)] for share in profile.layers]
        print_table(make_table(("layer", "", *NUMBERS), layers, text_columns=2))
    print(
        "\nms are those of one call, from barrier to barrier, averaged over the threads; waits ms is the part spent"
        "\nat the barrier. MB counts what a call reads, once: weights, and keys and values. Over floor ms is what"
        "\nlies above MB / read bandwidth. Tokens are filler: drawing takes longer than from the likelihoods of text."
    )


def headline(profile: "CallProfile") -> list[str]:
    """What the call is, and how far it is from the machine's limit."""
    overhead = 100 * (profile.profiled_ms / profile.call_ms - 1)
    return [
        f"{profile.rows} row{'s' * (profile.rows > 1)} at context {profile.context}, {profile.threads} threads:"
        f" {profile.call_ms:.3f} ms a call ({overhead:+.1f} % while profiled)",
        f"reads {profile.bytes / 1e6:.2f} MB; read bandwidth over as much memory {profile.read_gb_per_s:.1f} GB/s,"
        f" over the weights as mapped {profile.weights_gb_per_s:.1f} GB/s",
        f"floor {profile.floor_ms:.3f} ms: {100 * profile.reached:.1f} % reached; then drawing"
        f" {profile.draw_ms:.3f} ms",
    ]


def core_row(profile: "CallProfile", largest: float) -> list[str]:
    """What is no kernel's, in the table of kernels."""
    share, core_ms = profile.core_ms / profile.profiled_ms, f"{profile.core_ms:.3f}"
    words = ["core", "planning, waking, copies", bar(share / largest)]
    return [*words, "", core_ms, f"{100 * share:.1f} %", "", "", "", core_ms]


def numbers(share: "Share") -> list[str]:
    """The cells of `NUMBERS`."""
    return [
        f"{share.ms:.3f}",
        f"{100 * share.share:.1f} %",
        f"{share.waited_ms:.3f}",
        f"{share.bytes / 1e6:.3f}",
        f"{share.gb_per_s:.1f}",
        f"{share.gap_ms:.3f}",
    ]


def bar(part: float) -> str:
    """A bar of blocks, `BAR_WIDTH` wide at part 1, in steps of an eighth of a character."""
    eighths = round(part * BAR_WIDTH * 8)
    full, rest = divmod(eighths, 8)
    return (BLOCKS[8] * full + (BLOCKS[rest] if rest else "")).ljust(BAR_WIDTH)

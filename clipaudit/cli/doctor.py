"""`clipaudit doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clipaudit.cli.output import Result, printed

if TYPE_CHECKING:
    from clipaudit.calls.doctor import Device, Diagnosis


@printed
def doctor() -> Result:
    """Print what a bug report needs: clipaudit doctor

    Versions, devices, threads, memory, and the sizes of the caches. No setting that is a secret is shown.
    """
    from clipaudit.calls.doctor import diagnose

    found = diagnose()
    return Result(show=lambda: _show(found), document=lambda: vars(found))


def _show(found: Diagnosis) -> None:
    from clipaudit.cli.console import print_line, safe, show_warnings

    installed = {name: number for name, number in found.versions.items() if number is not None}
    missing = [name for name, number in found.versions.items() if number is None]
    print_line("[bold]Versions[/bold]")
    for name, number in installed.items():
        print_line(f"  {name:<16} {safe(number)}")
    print_line(f"  {'not installed':<16} {', '.join(missing) or 'nothing'}")
    print_line("[bold]Machine[/bold]")
    print_line(f"  {'system':<16} {safe(found.system)}")
    for device in found.devices:
        print_line(f"  {device.name:<16} {_device(device)}")
    print_line(f"  {'threads':<16} {', '.join(f'{name} {count:,}' for name, count in found.threads.items())}")
    print_line(f"  {'memory':<16} {', '.join(f'{name} {_size(n)}' for name, n in found.memory.items())}")
    print_line(f"  {'free disk':<16} {_size(found.disk_free)}")
    print_line("[bold]Caches[/bold]")
    for store in found.stores:
        print_line(f"  {_size(store.n_bytes):<16} {store.kind}, {safe(store.path)}")
    print_line("[bold]Environment[/bold]")
    for name, value in found.environment.items():
        print_line(f"  {name:<16} {safe(value)}")
    show_warnings(found.warnings)


def _device(device: Device) -> str:
    from clipaudit.cli.console import safe

    memory = f", {_size(device.free)} of {_size(device.memory)} free" if device.memory and device.free else ""
    return f"{safe(device.title)}{memory}"


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:,.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.1f} MB"

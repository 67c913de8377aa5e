"""Commands on networks: inspect, init."""

from pathlib import Path
from typing import Annotated

import typer

from masterkey.errors import MasterkeyError, UnknownNameError
from masterkey.rules import DEFAULT_BANK, DEFAULT_KERNEL, DEFAULT_POLICY, DEFAULT_SCALE

from .options import (
    KernelOption,
    LayersOption,
    PolicyOption,
    ScaleOption,
    SeedOption,
    as_path,
    inject_options,
    parse_model_kwargs,
)
from .output import Json, doing, print_json, print_table, tell

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="A timm model name.")]


def inspect(
    model: ModelArgument,
    bank: Annotated[str | None, typer.Option(help="Show what this bank would put where.")] = None,
    policy: PolicyOption = DEFAULT_POLICY,
    layers: LayersOption = None,
    kernel: KernelOption = DEFAULT_KERNEL,
    scale: ScaleOption = DEFAULT_SCALE,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of banks that are drawn.")] = 0,
    json: Json = False,
) -> None:
    """Show a network's depthwise layers.

    In forward order; with --bank, what that bank would put into each. --layers names those that are meant.

    Examples:

    masterkey inspect convnext_femto

    masterkey inspect mobilenetv3_large_100 --bank ./mcunet --layers stage:2
    """
    options = inject_options(policy, layers, kernel, scale, seed)
    if bank is None and options != inject_options(DEFAULT_POLICY, layers, DEFAULT_KERNEL, DEFAULT_SCALE, 0):
        raise typer.BadParameter("--policy, --kernel, --scale and --seed say how a bank goes in", param_hint="--bank")
    _refuse_bank_name(model)
    with doing(f"building {model}"):
        from masterkey.create import build_timm
        from masterkey.depthwise import require_layers
        from masterkey.injection import inject
        from masterkey.mask import require_meant

        network = build_timm(model)
        if bank is not None:
            report = inject(network, bank, **options)
        else:
            found = require_layers(network)
            meant = require_meant(found.layers, options["layers"])
    if bank is not None:
        print_json(report.to_dict()) if json else typer.echo(str(report))
        return
    shown = [layer for layer, is_meant in zip(found.layers, meant, strict=True) if is_meant]
    facts = [
        {
            "layer": layer.name,
            "filters": layer.shape[0],
            "kernel": list(layer.kernel),
            "stride": list(layer.stride),
            "channels": layer.groups,
            "stage": layer.stage,
        }
        for layer in shown
    ]
    if json:
        print_json({"model": model, "order": found.order, "layers": facts})
        return
    rows = [
        [
            layer.name,
            str(layer.shape[0]),
            f"{layer.kernel[0]}x{layer.kernel[1]}",
            f"{layer.stride[0]}x{layer.stride[1]}",
            "-" if layer.stage is None else str(layer.stage),
        ]
        for layer in shown
    ]
    print_table(["layer", "filters", "kernel", "stride", "stage"], rows)


def init(
    model: ModelArgument,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="PATH", parser=as_path, help="The state dict to write (.safetensors)."),
    ],
    bank: Annotated[str, typer.Option(help="A bank's name, built in or on the Hub, or its folder.")] = DEFAULT_BANK,
    num_classes: Annotated[
        int | None, typer.Option(min=0, help="Classes of the new head; timm's if not given.")
    ] = None,
    in_chans: Annotated[int | None, typer.Option(min=1, help="Channels of a picture; timm's if not given.")] = None,
    pretrained: Annotated[bool, typer.Option(help="Load timm's pretrained weights first.")] = False,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="PATH", parser=as_path, help="Load this checkpoint first.")
    ] = None,
    model_kwargs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="What else the network takes, as timm's option has it. May be repeated."
        ),
    ] = None,
    policy: PolicyOption = DEFAULT_POLICY,
    layers: LayersOption = None,
    kernel: KernelOption = DEFAULT_KERNEL,
    scale: ScaleOption = DEFAULT_SCALE,
    seed: SeedOption = 0,
    json: Json = False,
) -> None:
    """Write initial weights with a bank inside.

    A state dict for timm's --initial-checkpoint or any loader. It holds the filters, not their being frozen: to
    keep them so, load it in Python and inject the network's own filters into itself, as the last line says.

    Examples:

    masterkey init convnext_atto --bank scale-space-8 --num-classes 37 --model-kwargs ls_init_value=1.0 -o a.safetensors

    masterkey init mobilenetv3_small_100 --num-classes 17 -o model.safetensors
    """
    options = inject_options(policy, layers, kernel, scale, seed)
    more = parse_model_kwargs(model_kwargs or [])
    if taken := more.keys() & {"num_classes", "in_chans", "pretrained", "checkpoint_path", "bank", "seed", "output"}:
        raise typer.BadParameter(f"{sorted(taken)[0]} has an option of its own", param_hint="--model-kwargs")
    if foreign := more.keys() & {"name", "inject_kwargs"}:
        raise typer.BadParameter(f"{sorted(foreign)[0]} is nothing that the network takes", param_hint="--model-kwargs")
    _refuse_bank_name(model)
    with doing(f"building {model}"):
        from masterkey.initial import write_initial

        try:
            report = write_initial(
                model,
                bank,
                output,
                seed=seed,
                inject_kwargs=options,
                num_classes=num_classes,
                in_chans=in_chans,
                pretrained=pretrained,
                checkpoint_path=None if checkpoint is None else str(checkpoint),
                **more,
            )
        except (MasterkeyError, OSError):
            raise
        except Exception as error:  # a network fails in its own way on what it was not made for
            sizes = {"--num-classes": num_classes, "--in-chans": in_chans}
            given = [f"{option} {value}" for option, value in sizes.items() if value is not None]
            given += model_kwargs or []
            if not given:
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            hint = "--model-kwargs" if more else given[0].split()[0]
            said = f"timm's {model} cannot be built with {' '.join(given)}: {reason}"
            raise typer.BadParameter(said, param_hint=hint) from error
    masked = "" if options["layers"] is None else f", layers={options['layers']!r}"
    kind = "" if report.kind == "depthwise" else f", {report.kind!r}"
    tell(
        f"wrote {output}; once it is loaded, masterkey.inject(model, masterkey.Bank.from_model(model{kind}), "
        f"policy='layerwise'{masked}) freezes these filters"
    )
    if json:
        print_json(report.to_dict())
    else:
        typer.echo(report.summary())


def _refuse_bank_name(model: str) -> None:
    """Tell a network's name from its filters', which is written alike.

    Raises:
        UnknownNameError: a name of the Hub, ``timm/…``.
    """
    if model.startswith("timm/"):
        raise UnknownNameError(
            f"{model[:100]!r} names a bank, the filters of those weights; a network's name goes without timm/ here: "
            f"{model.removeprefix('timm/')[:100]!r}"
        )

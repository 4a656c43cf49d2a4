"""spoutnik plan model and models: what a model is made of and what a token of it costs."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from spoutnik.cli.plan_output import Json, Lang, Why, explain

if TYPE_CHECKING:
    from spoutnik.plan.components import Counts
    from spoutnik.plan.figure import Figure
    from spoutnik.plan.shape import Model
    from spoutnik.plan.speech import Speech

Size = Annotated[int | None, typer.Option(min=0)]


def model(
    name: Annotated[
        str | None, typer.Argument(help="A name of the catalogue, a config.json or its folder, a GGUF file, or RECIPE:STAGE.")
    ] = None,
    sequence_length: Annotated[int | None, typer.Option(help="Tokens in a sequence; else 4,096 or what the model has.", min=1)] = None,
    model_type: Annotated[str | None, typer.Option(help="The family, in Hugging Face's words; else llama, or deepseek_v3.")] = None,
    hidden_size: Size = None,
    intermediate_size: Size = None,
    num_hidden_layers: Size = None,
    num_attention_heads: Size = None,
    num_key_value_heads: Size = None,
    head_dim: Size = None,
    vocab_size: Size = None,
    kv_lora_rank: Size = None,
    q_lora_rank: Size = None,
    n_routed_experts: Size = None,
    n_shared_experts: Size = None,
    num_experts_per_tok: Size = None,
    moe_intermediate_size: Size = None,
    first_k_dense_replace: Size = None,
    num_nextn_predict_layers: Size = None,
    tie_word_embeddings: Annotated[bool | None, typer.Option()] = None,
    as_json: Json = False,
    why: Why = None,
    lang: Lang = None,
) -> None:
    """Parameters, total and active, and operations a token, by component. Sizes change the named model, or make one."""
    from spoutnik.plan.components import counts
    from spoutnik.plan.models import catalogue, open_model, title_of
    from spoutnik.plan.speech import language_of, speech

    flags = {
        "model_type": model_type, "hidden_size": hidden_size, "intermediate_size": intermediate_size,
        "num_hidden_layers": num_hidden_layers, "num_attention_heads": num_attention_heads, "num_key_value_heads": num_key_value_heads,
        "head_dim": head_dim, "vocab_size": vocab_size, "kv_lora_rank": kv_lora_rank, "q_lora_rank": q_lora_rank,
        "n_routed_experts": n_routed_experts, "n_shared_experts": n_shared_experts, "num_experts_per_tok": num_experts_per_tok,
        "moe_intermediate_size": moe_intermediate_size, "first_k_dense_replace": first_k_dense_replace,
        "num_nextn_predict_layers": num_nextn_predict_layers, "tie_word_embeddings": tie_word_embeddings,
    }  # fmt: skip
    opened = open_model(name, flags)
    entry = catalogue().get((name or "").lower())
    title = title_of(name, flags) if name else speech(language_of(lang))("head.by_sizes")
    _show(opened, counts(opened, sequence_length), entry.source if entry else "", title, as_json, why, lang)


def _show(model: "Model", counted: "Counts", source: str, title: str, as_json: bool, why: str | None, lang: str | None) -> None:
    from spoutnik.cli.output import print_json
    from spoutnik.plan.figure import find_figure
    from spoutnik.plan.model_figures import model_figures
    from spoutnik.plan.speech import language_of, speech

    figures, words = model_figures(model, counted, source), speech(language_of(lang))
    if why:
        explain(find_figure(why, list(figures.values())), as_json, words)
    elif as_json:
        print_json(_json(title, counted, figures))
    else:
        print(_text(title, source, counted, figures, words))


def _json(title: str, counted: "Counts", figures: "dict[str, Figure]") -> dict[str, Any]:
    parts = {
        part.name: {
            "parameters": part.parameters, "active_parameters": part.active_parameters, "forward_flops": part.forward,
            "forward_flops_full": part.forward_full, "backward_flops": 2 * part.forward,
        }
        for part in counted.components
    }  # fmt: skip
    numbers = {name: figure.to_json() for name, figure in figures.items()}
    return {"title": title, "sequence_length": counted.sequence_length, **numbers, "components": parts}


def _text(title: str, source: str, counted: "Counts", figures: "dict[str, Figure]", words: "Speech") -> str:
    from spoutnik.plan.answer import columns

    def said(name: str) -> str:
        return words.quantity(figures[name].value, figures[name].unit)

    length = words.number(counted.sequence_length)
    lines = [
        words(
            "model.title",
            title=title,
            total=said("params_total"),
            active=said("params_active"),
            training=said("flops_per_token"),
            length=length,
        )
    ]
    rows = [[words(f"model.{key}") for key in ("component", "parameters", "active", "forward", "full_head", "backward")]]
    for part in counted.components:
        held = [words.number(part.parameters), words.number(part.active_parameters)]
        rows.append(
            [words(f"model.{part.name}"), *held, *(words.quantity(x, "FLOP") for x in (part.forward, part.forward_full, 2 * part.forward))]
        )
    lines += ["", columns(rows, right=(1, 2, 3, 4, 5)), "", words("model.full", training=said("flops_per_token_full"))]
    if "mtp_parameters" in figures:
        lines.append(words("model.mtp", parameters=said("mtp_parameters"), training=said("flops_per_token_mtp")))
    lines.append(words("model.multiplied", share=said("beyond_6n")))
    lines.append(words("model.cache", cache=said("cache_bytes_per_token")))
    if source:
        lines.append(words("model.source", source=source))
    lines += ["", words("head.ask", names=", ".join(figures))]
    return "\n".join(lines)


def models(as_json: Json = False, lang: Lang = None) -> None:
    """The models of the catalogue."""
    from spoutnik.cli.output import print_json, table
    from spoutnik.plan.components import counts
    from spoutnik.plan.models import catalogue, from_hf
    from spoutnik.plan.speech import language_of, speech

    words = speech(language_of(lang))

    rows: dict[str, dict[str, Any]] = {}
    for name, entry in catalogue().items():
        counted = counts(from_hf(entry.config))
        rows[name] = {
            "title": entry.title, "parameters": counted.parameters, "active_parameters": counted.active_parameters, "source": entry.source,
        }  # fmt: skip
    if as_json:
        print_json(rows)
    else:
        print(
            table([[name, words.quantity(row["parameters"], "", exact=False), row["title"], row["source"]] for name, row in rows.items()])
        )

"""GRPO on a tiny V3 model with the real engine: what is sampled, who gets credit, and which gradient comes of it."""

import copy
import math

import pytest
import torch

from spoutnik.engine.generator import Engine
from spoutnik.engine.kernels.build import compiler
from spoutnik.engine.torch_runner import TorchRunner
from spoutnik.errors import UserError
from spoutnik.model.init import initialise
from spoutnik.model.transformer import CausalLM
from spoutnik.recipe.reinforcement import RLStage
from spoutnik.run.record import read
from spoutnik.tasks import make
from spoutnik.tasks.reward import Reward
from spoutnik.train import collect, policy, rl, rollouts
from spoutnik.train.algorithms.groups import group_advantages
from spoutnik.train.collect import rewards
from spoutnik.train.curriculum import PassRates
from spoutnik.train.optim import Optimizer
from spoutnik.train.policy import Engines
from spoutnik.train.rl import frozen_copy, make_engines, rl_step
from spoutnik.train.rollouts import Rollout
from spoutnik.train.scoring import answer_logits, answer_logprobs
from spoutnik.train.state import TrainState, load_state, save_state

TASK = {"name": "countdown", "numbers": [2], "high": 9}
COUNTDOWN = make("countdown", numbers=[2], high=9)
needs_kernels = pytest.mark.skipif(compiler() is None, reason="no C++ compiler here")


def stage(**changes):
    settings = {"prompts": 2, "group": 3, "max_new_tokens": 6, "steps": 10, "learning_rate": 1e-2, "grad_clip": 1e6, "temperature": 0.8}
    return RLStage.model_validate({"name": "stage", "from": "x", "task": TASK, **settings, **changes})


def start(model, kl_coef=0.001):
    return TrainState(model, Optimizer(model, 1e-2, 0.0), reference=frozen_copy(model) if kl_coef else None)


@pytest.fixture
def engines(tokenizer):
    """Makes the engines of a state, by the kernels where they are, or by the torch modules."""

    def made(state, runner="best", dtype="float32"):
        if runner == "modules":
            return Engines(Engine(state.model, tokenizer, 12, runner=TorchRunner(state.model, 12, 256)), None)
        return make_engines(state.model, state.reference, tokenizer, 12, dtype)

    return made


@pytest.fixture
def parity(monkeypatch):
    """A verifier that a model which learnt nothing can please: right if the number of characters is even."""
    monkeypatch.setattr(rollouts, "grade", lambda task, problem, text, thinking: Reward(float(len(text) % 2 == 0), 0.0, 0.0))


@pytest.fixture
def gradients(monkeypatch):
    """The gradient of every update, instead of the update."""
    found = []

    def keep(state, *_):
        found.append({name: parameter.grad.clone() for name, parameter in state.model.named_parameters() if parameter.grad is not None})
        state.optimizer.zero_grad()
        return 0.0

    monkeypatch.setattr(policy, "apply_update", keep)
    return found


def rollout(tokens, accuracy=0.0, fault=None, prompt=(5, 6, 7)):
    problem = COUNTDOWN.problem("train", 0, 0)
    reward = Reward(accuracy, 0.5, 0.25, fault)
    return Rollout(problem, list(prompt), list(tokens), [-1.0] * len(tokens), "", False, reward, 0, 0, False)


def batch(samples, settings):
    return policy.mini_batch(samples, rewards(samples, settings), settings.micro_batch_tokens)


@needs_kernels
def test_in_float32_every_step_begins_with_the_samplers_bits_and_the_first_with_the_references(model, tokenizer, context, parity, engines):
    state, settings = start(model), stage(prompts=4, minibatches=2, kl_coef=0.1, reference_every=2)
    running = engines(state)
    found = [rl_step(state, settings, COUNTDOWN, running, context) for _ in range(4)]
    assert all(step["grad_norm"] > 0 for step in found)
    assert [step["mismatch"] for step in found] == [0.0] * 4
    assert all(0 < step["forward_gap"] < 1e-5 for step in found), "what the modules are off by is told, too"
    alone = rl_step(state, stage(prompts=4, kl_coef=0.1, reference_every=4), COUNTDOWN, running, context)
    assert alone["kl"] == 0.0, "the reference has just been made the policy"
    assert alone["clip_fraction"] == 0


@needs_kernels
def test_in_bfloat16_values_are_still_the_samplers_bits_and_float32_weights_learn(model, context, parity, engines):
    state, settings = start(model), stage(prompts=4, kl_coef=0.1, dtype="bfloat16")
    running, before = engines(state, dtype="bfloat16"), copy.deepcopy(model.state_dict())
    metrics = rl_step(state, settings, COUNTDOWN, running, context)
    assert metrics["mismatch"] == 0.0
    assert metrics["kl"] == 0.0
    assert metrics["clip_fraction"] == 0
    assert 1e-5 < metrics["forward_gap"] < rl.MISMATCH_LIMIT["bfloat16"], "rounded products, in the modules too"
    assert all(tensor.dtype == before[name].dtype for name, tensor in model.state_dict().items())
    assert any(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert rl_step(state, settings, COUNTDOWN, running, context)["mismatch"] == 0.0, "the sampler follows the weights"


def test_modules_that_sample_agree_with_themselves_up_to_rounding(model, context, parity, engines):
    state = start(model)
    metrics = rl_step(state, stage(prompts=4), COUNTDOWN, engines(state, "modules"), context)
    assert metrics["no_signal"] < 1
    assert 0 < metrics["mismatch"] < 1e-5
    assert metrics["forward_gap"] == metrics["mismatch"]
    assert abs(metrics["kl"]) < 1e-9
    assert metrics["clip_fraction"] == 0


@needs_kernels
def test_values_of_later_mini_batches_are_those_of_the_moved_policy(model, context, parity, engines, monkeypatch):
    inner, distances, moved = policy._micro_loss, [], []

    def compare(state, settings, streams, fixed, tokens, kept):
        with torch.no_grad():
            own_BT = answer_logprobs(answer_logits(state.model, fixed["ids"], fixed["mask"]), fixed["ids"], fixed["mask"], 0.8)
        distances.append(float((own_BT - fixed["policy"]).abs().max()))
        moved.append(float((fixed["sampler"] - fixed["policy"]).abs().max()))
        return inner(state, settings, streams, fixed, tokens, kept)

    monkeypatch.setattr(policy, "_micro_loss", compare)
    monkeypatch.setattr(rl, "has_signal", lambda rewards_PG: torch.ones(len(rewards_PG), dtype=torch.bool))
    state = start(model)
    state.step = 1  # past the first step of the warm-up
    rl_step(state, stage(prompts=4, minibatches=2), COUNTDOWN, engines(state), context)
    assert len(distances) == 2
    assert max(distances) < 1e-4
    assert moved[0] == 0.0
    assert moved[1] > 1e-3


@needs_kernels
@pytest.mark.parametrize("kl_coef", [0.0, 0.1])
def test_the_gradient_is_that_of_the_modules_own_values(model, context, gradients, engines, kl_coef):
    samples = [rollout(range(9, 9 + length), float(length % 2)) for length in (1, 5, 2, 4, 3, 7)]
    settings, state = stage(kl_coef=kl_coef), start(model, kl_coef)
    with torch.no_grad():
        model.lm_head.weight.mul_(1.5)  # away from the reference, and the samples come from elsewhere
    for runner in ("best", "modules"):
        policy.update_policy(state, settings, context, engines(state, runner), batch(samples, settings), 1.0, moved=True)
    by_kernels, by_modules = gradients
    assert by_kernels.keys() == by_modules.keys()
    for name in by_kernels:
        torch.testing.assert_close(by_kernels[name], by_modules[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("average", ["answers", "tokens"])
def test_the_first_gradient_is_reinforce_with_advantages(model, context, gradients, engines, average):
    samples = [rollout([9, 8, 7], 1.0), rollout([9, 3], 0.0), rollout([4], 0.0)]
    with torch.no_grad():
        for sample in samples:
            ids_BT = torch.tensor([sample.prompt_ids + sample.token_ids])
            mask_BT = torch.tensor([[0.0] * 3 + [1.0] * len(sample.token_ids)])
            sample.logprobs[:] = answer_logprobs(answer_logits(model, ids_BT, mask_BT), ids_BT, mask_BT, 0.8)[0, 3:].tolist()
    settings, state = stage(prompts=1, average=average), start(model)
    policy.update_policy(state, settings, context, engines(state), batch(samples, settings), 1.0, moved=True)
    loss = torch.zeros(())
    for sample, advantage in zip(samples, group_advantages(rewards(samples, settings))[0], strict=True):
        weight = 1 / 6 if average == "tokens" else 1 / (3 * len(sample.token_ids))
        logits_BTV = model(torch.tensor([sample.prompt_ids + sample.token_ids])) / 0.8
        for place, token in enumerate(sample.token_ids, start=3):
            loss = loss - advantage * logits_BTV[0, place - 1].log_softmax(-1)[token] * weight
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(gradients[0][name], parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cells", [1, 12, 100_000])
def test_the_gradient_does_not_depend_on_the_micro_batches(model, context, gradients, engines, cells):
    samples = [rollout(range(9, 9 + length), float(length % 2)) for length in (1, 5, 2, 4, 3, 7)]
    state = start(model)
    with torch.no_grad():
        model.lm_head.weight.mul_(1.5)  # away from the reference
    for size in (8192, cells):
        settings = stage(kl_coef=0.1, micro_batch_tokens=size)
        metrics, gap = policy.update_policy(state, settings, context, engines(state), batch(samples, settings), 1.0, moved=True)
    first, second = gradients
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(second[name], first[name], rtol=1e-4, atol=1e-6)
    assert metrics["kl"] > 0
    assert gap > 0


def test_micro_batches_hold_every_row_once_within_their_size():
    lengths = [3, 9, 30, 5, 5, 1, 10, 2]
    batches = policy._micro_batches(lengths, 20)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= 20 for batch in batches)


def test_rewards_are_weighed_and_a_sample_without_verdict_gets_neither_credit_nor_blame():
    samples = [rollout([1], 1.0), rollout([1], 0.0), rollout([1], 0.0, fault="timeout")]
    settings = stage(prompts=1, format_weight=2.0, language_weight=0.4)
    found_PG = rewards(samples, settings)
    torch.testing.assert_close(found_PG, torch.tensor([[2.1, 1.1, 1.6]]))
    assert abs(float(group_advantages(found_PG)[0, 2])) < 1e-6


def test_a_group_that_no_verifier_judged_gives_no_signal():
    samples = [rollout([1], 0.0, fault="timeout")] * 3
    assert torch.equal(group_advantages(rewards(samples, stage(prompts=1))), torch.zeros(1, 3))


def test_groups_without_signal_are_counted_and_change_nothing(model, context, engines, monkeypatch):
    monkeypatch.setattr(rollouts, "grade", lambda *_: Reward(1.0, 1.0, 0.3))
    state = start(model)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    metrics = rl_step(state, stage(language_weight=0.1), COUNTDOWN, engines(state), context)
    assert metrics["no_signal"] == 1.0
    assert metrics["reward"] == pytest.approx(2.03)
    assert state.step == 1
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    assert not any(state.optimizer.state_of(parameter) for parameter in model.parameters())


def test_mini_batches_are_several_updates_of_one_step_at_one_learning_rate(model, context, parity, engines, monkeypatch):
    scales = []
    monkeypatch.setattr(policy, "apply_update", lambda state, loss, scale, *_: scales.append(scale) or 0.0)
    monkeypatch.setattr(rl, "has_signal", lambda rewards_PG: torch.ones(len(rewards_PG), dtype=torch.bool))
    state = start(model)
    state.step = 9
    rl_step(state, stage(prompts=4, minibatches=2, steps=1000), COUNTDOWN, engines(state), context)
    assert scales == [pytest.approx(10 / 50)] * 2
    assert state.step == 10


def test_the_reference_follows_the_policy_every_so_many_steps_in_its_own_memory(model, context, parity, engines):
    state, settings = start(model), stage(reference_every=2, kl_coef=0.1)
    running, before = engines(state), model.lm_head.weight.clone()
    where = {name: parameter.data_ptr() for name, parameter in state.reference.named_parameters()}
    for _ in range(2):
        rl_step(state, settings, COUNTDOWN, running, context)
    assert torch.equal(state.reference.lm_head.weight, before)
    policy = {name: parameter.clone() for name, parameter in model.state_dict().items()}
    rl_step(state, settings, COUNTDOWN, running, context)
    assert all(torch.equal(tensor, policy[name]) for name, tensor in state.reference.state_dict().items())
    assert {name: parameter.data_ptr() for name, parameter in state.reference.named_parameters()} == where


@pytest.mark.parametrize("runner", ["best", "modules"])
def test_a_sampler_that_disagrees_with_the_trainer_stops_the_run(model, context, parity, engines, monkeypatch, runner):
    sample = collect.sample_rollouts

    def wrong(*arguments):
        found = sample(*arguments)
        for each in found:
            each.logprobs[:] = [logprob - 0.5 for logprob in each.logprobs]
        return found

    monkeypatch.setattr(collect, "sample_rollouts", wrong)
    state = start(model)
    with pytest.raises(UserError, match=r"disagree .* by 0\.5 nats"):
        rl_step(state, stage(prompts=4), COUNTDOWN, engines(state, runner), context)


@needs_kernels
def test_modules_that_compute_something_else_stop_the_run_though_only_their_derivative_is_used(
    model, context, parity, engines, monkeypatch
):
    monkeypatch.setattr(policy, "answer_logits", lambda *arguments: 1.3 * answer_logits(*arguments))
    state = start(model)
    with pytest.raises(UserError, match="disagree"):
        rl_step(state, stage(prompts=4), COUNTDOWN, engines(state), context)


def test_a_step_is_a_pure_function_of_weights_seed_and_step_not_of_what_the_engines_did_before(config, context, parity, engines):
    found = []
    for fresh in (False, True):
        model = CausalLM(config)
        initialise(model, seed=1)
        state = start(model)
        running = engines(state)
        for _ in range(3):
            rl_step(state, stage(minibatches=2, kl_coef=0.1), COUNTDOWN, engines(state) if fresh else running, context)
        found.append({name: parameter.detach() for name, parameter in model.named_parameters()})
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_thinking_of_the_first_and_last_step_is_kept_for_the_report(model, context, parity, engines):
    state, settings = start(model), stage(steps=3)
    running = engines(state)
    for _ in range(3):
        rl_step(state, settings, COUNTDOWN, running, context)
    samples = [(event["when"], event["step"]) for event in read(context.record.path) if event.get("when") in ("early", "late")]
    assert samples == [("early", 1)] * 2 + [("late", 3)] * 2
    assert context.ledger.costs().tokens > 0
    assert math.isfinite(context.ledger.costs().flops)


@pytest.fixture
def by_prompt(monkeypatch):
    """Grades by a function of the problem and the text."""

    def graded(verdict):
        monkeypatch.setattr(rollouts, "grade", lambda task, problem, text, thinking: Reward(float(verdict(problem, text)), 0.0, 0.0))

    return graded


def test_dynamic_sampling_draws_new_problems_for_groups_without_signal_until_none_is_left(model, context, by_prompt, engines):
    hopeless = {COUNTDOWN.problem("train", context.seed, index).prompt for index in (0, 2)}
    by_prompt(lambda problem, text: problem.prompt not in hopeless and len(text) % 2 == 0)
    state = start(model, kl_coef=0.0)
    metrics = rl_step(state, stage(algorithm="dapo", prompts=3, group=12), COUNTDOWN, engines(state), context)
    assert metrics["no_signal"] == pytest.approx(2 / 3), "of the problems drawn first"
    assert metrics["informative"] == 3
    assert metrics["groups"] == 5
    assert metrics["accuracy"] < 0.3, "of what nothing has selected"


def test_dynamic_sampling_gives_up_after_so_many_rounds(model, context, by_prompt, engines):
    by_prompt(lambda problem, text: False)
    state = start(model, kl_coef=0.0)
    before = model.lm_head.weight.clone()
    settings = stage(algorithm="dapo", prompts=2, sampling_rounds=3, overlong_cache=0)
    metrics = rl_step(state, settings, COUNTDOWN, engines(state), context)
    assert (metrics["groups"], metrics["informative"], metrics["no_signal"]) == (6, 0, 1.0)
    assert torch.equal(model.lm_head.weight, before)


def test_rounds_and_steps_never_draw_the_same_problem_twice(model, context, by_prompt, engines, monkeypatch):
    by_prompt(lambda problem, text: False)
    drawn, problem = [], COUNTDOWN.problem
    monkeypatch.setattr(COUNTDOWN, "problem", lambda split, seed, index: drawn.append(index) or problem(split, seed, index))
    state = start(model, kl_coef=0.0)
    settings = stage(algorithm="dapo", prompts=2, sampling_rounds=2, overlong_cache=0)
    for _ in range(3):
        rl_step(state, settings, COUNTDOWN, engines(state), context)
    assert len(drawn) == len(set(drawn)) == 12


def test_long_answers_earn_less_where_the_recipe_says_so():
    samples = [rollout(range(9, 9 + length), 1.0) for length in (2, 5, 6)]
    found_PG = rewards(samples, stage(prompts=1, overlong_cache=2, format_weight=0.0))
    torch.testing.assert_close(found_PG, torch.tensor([[1.0, 0.5, 0.0]]))


@pytest.mark.parametrize("algorithm", ["grpo", "dr_grpo", "dapo", "gspo", "v32"])
def test_every_algorithm_makes_steps_whose_first_ratio_is_exactly_one(model, context, parity, engines, algorithm):
    settings = stage(algorithm=algorithm, prompts=4, group=6, minibatches=2, kl_coef=0.1, steps=2, learning_rate=1e-3)
    state = start(model)
    running = engines(state)
    first = rl_step(state, settings, COUNTDOWN, running, context)
    assert first["grad_norm"] > 0
    assert math.isfinite(first["loss"])
    second = rl_step(state, settings, COUNTDOWN, running, context)
    assert second["grad_norm"] > 0
    assert second["mismatch"] == (0.0 if running.policy.exact else second["forward_gap"])


def test_the_ratio_corrects_for_what_the_sampler_said(model, context, gradients, engines):
    """Where the sampler gave tokens another probability, each token's gradient is weighed by the ratio of the two."""
    state, settings = start(model, kl_coef=0.0), stage(prompts=1, group=2)
    samples = [rollout([9, 8], 1.0), rollout([4], 0.0)]
    with torch.no_grad():
        for sample in samples:
            ids_BT, mask_BT = torch.tensor([sample.prompt_ids + sample.token_ids]), torch.zeros(1, 3 + len(sample.token_ids))
            mask_BT[:, 3:] = 1.0
            sample.logprobs[:] = answer_logprobs(answer_logits(model, ids_BT, mask_BT), ids_BT, mask_BT, 0.8)[0, 3:].tolist()
    policy.update_policy(state, settings, context, engines(state, "modules"), batch(samples, settings), 1.0, moved=False)
    for sample in samples:
        sample.logprobs[:] = [logprob - math.log(2.0) for logprob in sample.logprobs]
    policy.update_policy(state, settings, context, engines(state, "modules"), batch(samples, settings), 1.0, moved=False)
    agreed, corrected = gradients
    for name in agreed:
        torch.testing.assert_close(corrected[name], 2.0 * agreed[name], rtol=1e-3, atol=1e-6)


@pytest.fixture
def everything_counts(monkeypatch):
    """Groups whose rewards agree are trained on, too, so that a tiny model's step surely has two mini-batches."""
    monkeypatch.setattr(rl, "has_signal", lambda rewards_PG: torch.ones(len(rewards_PG), dtype=torch.bool))


@pytest.mark.parametrize("truncation", [{"top_p": 0.6}, {"top_k": 3}])
def test_where_the_sampler_cuts_the_vocabulary_both_policies_and_the_reference_are_over_what_it_kept(
    model, context, parity, engines, everything_counts, monkeypatch, truncation
):
    inner, seen = policy.objective, []

    def look(streams, logprobs_BT, log_ratio_BT, clip, divergence_BT):
        largest = (log_ratio_BT.abs(), divergence_BT.abs(), logprobs_BT)
        seen.append([float(values.detach().max()) for values in largest])
        return inner(streams, logprobs_BT, log_ratio_BT, clip, divergence_BT)

    monkeypatch.setattr(policy, "objective", look)
    state = start(model)
    state.step = 1
    settings = stage(prompts=4, minibatches=2, kl_coef=0.1, **truncation)
    running = engines(state)
    metrics = rl_step(state, settings, COUNTDOWN, running, context)
    first, second = seen
    assert first[0] == 0.0 if running.policy.exact else first[0] < 1e-4
    assert first[1] < 1e-9
    assert second[0] > 1e-3, "the first mini-batch moved the policy"
    assert metrics["mismatch"] < 1e-5
    assert all(most <= 1e-5 for _, _, most in seen), "probabilities at most 1"


def test_routing_is_kept_while_updates_move_the_routers(model, context, parity, engines, everything_counts, monkeypatch):
    inner, chosen = policy.answer_logits, []

    def look(model, ids_BT, mask_BT, routing=None):
        found = inner(model, ids_BT, mask_BT, routing)
        chosen.append(None if routing is None else [experts_TK.clone() for experts_TK in routing.experts_TK])
        return found

    monkeypatch.setattr(policy, "answer_logits", look)
    state = start(model, kl_coef=0.0)
    state.step = 1
    with torch.no_grad():
        model.model.layers[1].mlp.gate.weight.mul_(1e-3)  # affinities so alike that a step changes choices
    settings = stage(prompts=4, minibatches=2, kl_coef=0.0, keep_routing=True)
    metrics = rl_step(state, settings, COUNTDOWN, engines(state), context)
    assert len(chosen) == 4, "two looks before the first update, two updates"
    assert all(torch.equal(a, b) for before, after in ((0, 2), (1, 3)) for a, b in zip(chosen[before], chosen[after], strict=True))
    assert metrics["rerouted"] > 0
    chosen.clear()
    rl_step(state, stage(prompts=4, minibatches=1, kl_coef=0.0, keep_routing=True), COUNTDOWN, engines(state), context)
    assert chosen == [None], "with one update the routing is the rollouts' by itself"


def test_a_curriculum_draws_from_its_pool_and_learns_its_pass_rates(model, context, by_prompt, engines):
    easy = COUNTDOWN.problem("train", context.seed, 0).prompt
    by_prompt(lambda problem, text: problem.prompt == easy or len(text) % 2 == 0)
    state, settings = start(model, kl_coef=0.0), stage(prompts=2, kl_coef=0.0, curriculum={"problems": 5})
    state.pass_rates = PassRates.unknown(5)
    running = engines(state)
    steps = [rl_step(state, settings, COUNTDOWN, running, context) for _ in range(8)]
    assert steps[0]["pool_seen"] == pytest.approx(2 / 5)
    assert steps[-1]["pool_seen"] == 1.0
    assert state.pass_rates.rate(0) == max(map(state.pass_rates.rate, range(5)))


def test_a_curriculum_goes_on_to_the_same_bits_from_a_saved_state(config, context, parity, engines, tmp_path):
    settings, found = stage(prompts=2, kl_coef=0.0, curriculum={"problems": 7}), []
    for interrupted in (False, True):
        model = CausalLM(config)
        initialise(model, seed=1)
        state = start(model, kl_coef=0.0)
        state.pass_rates = PassRates.unknown(7)
        for step in range(4):
            if interrupted and step == 2:
                save_state(state, tmp_path)
                state = load_state(start(CausalLM(config), kl_coef=0.0), tmp_path)
            rl_step(state, settings, COUNTDOWN, engines(state), context)
        found.append((state.pass_rates, state.disputed, {name: tensor.clone() for name, tensor in state.model.state_dict().items()}))
    assert found[0][:2] == found[1][:2]
    assert all(torch.equal(found[0][2][name], tensor) for name, tensor in found[1][2].items())


def test_a_reward_that_is_gamed_is_shown_and_stops_the_run(model, context, by_prompt, engines):
    by_prompt(lambda problem, text: len(text) % 2 == 0)  # pays for something else than the task
    state, settings = start(model, kl_coef=0.0), stage(prompts=2, kl_coef=0.0, monitor={"max_disputed": 0.1, "steps": 3})
    running = engines(state)
    first = rl_step(state, settings, COUNTDOWN, running, context)
    assert first["disputed"] == pytest.approx(first["accuracy"])
    assert first["checked"] == 0.0

    def go_on():
        for _ in range(8):
            rl_step(state, settings, COUNTDOWN, running, context)

    with pytest.raises(UserError, match="please the reward"):
        go_on()
    disputed = [event for event in read(context.record.path) if event.get("when") == "disputed"]
    assert disputed
    assert disputed[0]["correct"] is False

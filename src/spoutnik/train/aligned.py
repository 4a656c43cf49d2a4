"""What a teacher says of a student's own answers, whatever its tokenizer: token by token where text is cut alike, else chunk by chunk."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spoutnik.errors import UserError
from spoutnik.teacher.local import LocalTeacher
from spoutnik.teacher.translated import translate
from spoutnik.text import reasoning
from spoutnik.text.alignment import Chunk, chunks, shared_tokens, token_bytes
from spoutnik.text.tokenizer import Tokenizer
from spoutnik.train.examples import collate
from spoutnik.train.losses import reverse_kl
from spoutnik.train.rollouts import Rollout

ASKED = [{"role": "user", "content": "?"}]


@dataclass(frozen=True)
class Pull:
    """What is said of the N tokens of some answers, row by row; [N] each."""

    divergence: Tensor
    """Exact reverse KL, with its gradient; zero where only chunks are compared."""
    advantages: Tensor
    """log p_teacher - log p_student of a token's chunk, without gradient; zero where the divergence is exact."""
    counted: Tensor
    """Whether anything is said of a token."""
    estimate: Tensor
    """Reverse KL, exact or sampled, without gradient; the sum is that of the answers."""


class AlignedTeacher:
    """One teacher of a student. Its distributions are compared as they are, in the student's ids, or not at all but for whole chunks.

    A teacher with the student's tokenizer sees the student's tokens as they are; another one sees the problem in its own chat template.
    Raises UserError where the two cannot be aligned.
    """

    def __init__(self, teacher: LocalTeacher, student: Tokenizer, student_vocab: int):
        self.teacher, self._student, self._student_vocab = teacher, student, student_vocab
        self._verbatim = teacher.fingerprint == student.fingerprint()
        self._equal = self._verbatim and teacher.vocab_size == student_vocab
        self.shared = None if self._equal else shared_tokens(student, teacher.tokenizer)
        if not self._verbatim:
            self._check_templates()
        self._by_tokens = self._equal or self.shared is not None
        if not self._by_tokens:
            _ = self._pieces  # is refused now, not at the first answer

    @functools.cached_property
    def _pieces(self) -> tuple[list[bytes], list[bytes]]:
        """The bytes of the student's tokens and of the teacher's."""
        ours, theirs = token_bytes(self._student), token_bytes(self.teacher.tokenizer)
        if ours is None or theirs is None:
            raise UserError(
                f"The student and the teacher {self.teacher.name!r} have different tokenizers, and one of them is not byte-level, so what "
                "they write cannot be compared piece by piece; use mode = 'samples'."
            )
        return ours, theirs

    def _check_templates(self) -> None:
        opened = [reasoning.starts_thinking(tokenizer.render(ASKED)) for tokenizer in (self._student, self.teacher.tokenizer)]
        if opened[0] != opened[1]:
            raise UserError(
                f"The chat template of {'the student' if opened[0] else repr(self.teacher.name)} opens the thinking and the other one does "
                "not, so the teacher would see another answer than the student wrote; use mode = 'samples'."
            )

    def pull(self, rollouts: Sequence[Rollout], student_NV: Tensor, logprobs_N: Tensor) -> Pull:
        """What the teacher says of these answers. The student's logits and its log-probabilities of the tokens are of just these."""
        if self._by_tokens:
            return self._by_token(rollouts, student_NV)
        return self._by_chunk(rollouts, logprobs_N.detach())

    def _prompt(self, rollout: Rollout) -> list[int]:
        if self._verbatim:
            return rollout.prompt_ids
        return self.teacher.tokenizer.encode(self.teacher.tokenizer.render([{"role": "user", "content": rollout.problem.prompt}]))

    def _by_token(self, rollouts: Sequence[Rollout], student_NV: Tensor) -> Pull:
        """An answer counts up to the first token that the teacher lacks: there it can still say what it would rather have seen."""
        ids = dict(zip(self.shared.ours, self.shared.theirs, strict=True)) if self.shared is not None and not self._verbatim else None
        rows, starts, counted = [], [], []
        for rollout in rollouts:
            answer: list[int | None] = [ids.get(token) for token in rollout.token_ids] if ids is not None else [*rollout.token_ids]
            seen = next((place + 1 for place, token in enumerate(answer) if token is None), len(answer))
            prompt = self._prompt(rollout)
            rows.append([*prompt, *(token or 0 for token in answer[:seen])])
            starts.append(len(prompt))
            counted += [place < seen for place in range(len(answer))]
        counted_N = torch.tensor(counted, device=student_NV.device)
        said = self.teacher.logprobs(*collate(rows, starts, device=student_NV.device))
        target = said if self.shared is None else translate(said, self.shared, self._student_vocab)
        divergence_N = student_NV.new_zeros(len(counted)).masked_scatter(counted_N, reverse_kl(student_NV[counted_N], target))
        return Pull(divergence_N, torch.zeros_like(divergence_N), counted_N, divergence_N.detach())

    def _by_chunk(self, rollouts: Sequence[Rollout], logprobs_N: Tensor) -> Pull:
        rows, starts, cuts = [], [], []
        for rollout in rollouts:
            answer, found = self._cut(rollout)
            prompt = self._prompt(rollout)
            rows.append([*prompt, *answer])
            starts.append(len(prompt))
            cuts.append(found)
        ids_BT, mask_BT = collate(rows, starts, device=logprobs_N.device)
        said_NV = self.teacher.logprobs(ids_BT, mask_BT)
        theirs_N = said_NV.gather(-1, ids_BT[mask_BT > 0][:, None]).squeeze(-1)
        advantages, estimate = torch.zeros_like(logprobs_N), torch.zeros_like(logprobs_N)
        counted = torch.zeros_like(logprobs_N, dtype=torch.bool)
        our = their = 0
        for rollout, row, start, found in zip(rollouts, rows, starts, cuts, strict=True):
            for chunk in found:
                mine = slice(our + chunk.ours[0], our + chunk.ours[1])
                gain = theirs_N[their + chunk.theirs[0] : their + chunk.theirs[1]].sum() - logprobs_N[mine].sum()
                advantages[mine], counted[mine], estimate[our + chunk.ours[1] - 1] = gain, True, -gain
            our, their = our + len(rollout.token_ids), their + len(row) - start
        return Pull(torch.zeros_like(logprobs_N), advantages, counted, estimate)

    def _cut(self, rollout: Rollout) -> tuple[list[int], list[Chunk]]:
        """The answer in the teacher's tokens, and what the two have in common; both ends of the turn are the last chunk."""
        our_pieces, their_pieces = self._pieces
        tokens = list(rollout.token_ids)
        ends = tokens[-1:] and tokens[-1] in self._student.eos_token_ids
        ours = [our_pieces[token] if token < len(our_pieces) else b"" for token in (tokens[:-1] if ends else tokens)]
        answer = self.teacher.tokenizer.encode(b"".join(ours).decode("utf-8", "replace"))
        found = chunks(ours, [their_pieces[token] for token in answer])
        covered = (found[-1].ours[1], found[-1].theirs[1]) if found else (0, 0)
        end = self.teacher.tokenizer.eos_token_id
        if ends and end is not None and covered == (len(ours), len(answer)):
            found.append(Chunk((len(ours), len(ours) + 1), (len(answer), len(answer) + 1)))
            answer.append(end)
        return answer, found

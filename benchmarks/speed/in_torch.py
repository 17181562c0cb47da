"""A row in PyTorch: plain definitions of the networks and a plain loop.

Channels are last, as PyTorch recommends for convolutions; on a GPU the model is compiled, and bfloat16 is by autocast.
"""

import os

import numpy as np
import torch
import torch_networks as networks
from torch.nn import functional

KERAS_ADAM_EPSILON = 1e-7


def versions() -> dict:
    """Returns the versions of the libraries."""
    return {"torch": torch.__version__}


class System:
    """The model and the optimizer of a row; memory_format: channels_last or contiguous_format; mode: of compilation."""

    def __init__(self, spec, images, labels, *, memory_format="channels_last", mode="default"):
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        if self._device == "cpu":
            torch.set_num_threads(len(os.sched_getaffinity(0)))
        else:
            torch.set_float32_matmul_precision("high")  # TensorFloat-32, as JAX uses for float32 on these devices
        self._batch, self._bfloat16 = spec["batch"], spec["dtype"] == "bfloat16"
        torch.manual_seed(0)
        self._model = networks.Network(spec).to(self._device, memory_format=getattr(torch, memory_format))
        self._run = torch.compile(self._model, mode=mode) if self._device == "cuda" else self._model
        trained = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.Adam(trained, lr=spec["learning_rate"], eps=KERAS_ADAM_EPSILON, fused=True)
        # [N, 48, 48, 1] to [N, 1, 48, 48]
        self._images = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).to(self._device)
        self._labels = torch.from_numpy(labels.astype(np.int64)).to(self._device)

    def parameters(self) -> dict:
        """Returns the numbers of parameters, statistics included, and of trained ones."""
        return networks.parameters(self._model)

    def _at(self, number):
        start = number * self._batch % len(self._labels)
        return self._images[start : start + self._batch], self._labels[start : start + self._batch]

    def _forward(self, images):
        with torch.autocast(self._device, torch.bfloat16, enabled=self._bfloat16):
            return self._run(images).float()

    def _judge(self, batches, step):
        """Runs `step` on so many batches; sums and fetches losses and correct predictions."""
        total, correct = torch.zeros((), device=self._device), torch.zeros((), device=self._device)
        for number in range(batches):
            images, labels = self._at(number)
            logits, loss = step(images, labels)
            total += loss.detach()
            correct += (logits.argmax(1) == labels).sum()
        if not np.isfinite(total.item()):
            raise FloatingPointError("the loss is NaN")
        return correct.item()

    def _train_step(self, images, labels):
        self._optimizer.zero_grad(set_to_none=True)
        logits = self._forward(images)
        loss = functional.cross_entropy(logits, labels)
        loss.backward()
        self._optimizer.step()
        return logits.detach(), loss

    def _eval_step(self, images, labels):
        logits = self._forward(images)
        return logits, functional.cross_entropy(logits, labels)

    def train(self, batches: int) -> None:
        """Runs steps of Adam."""
        self._model.train()
        self._judge(batches, self._train_step)

    def evaluate(self, batches: int) -> None:
        """Evaluates batches in inference mode."""
        self._model.eval()
        with torch.inference_mode():
            self._judge(batches, self._eval_step)

    def predict(self, batches: int) -> None:
        """Predicts batches and copies the probabilities to the host."""
        self._model.eval()
        with torch.inference_mode():
            for number in range(batches):
                self._forward(self._at(number)[0]).softmax(1).cpu().numpy()

    def describe(self) -> dict:
        """Returns the settings that it ran with."""
        return {"threads": torch.get_num_threads()} if self._device == "cpu" else {}

"""The networks of the comparison in PyTorch, layer for layer as in Keras and fer_jax, with Keras's layer names."""

import torch
from torch import nn
from torch.nn import functional

KERAS_EPSILON, RESNET_EPSILON = 1e-3, 1.001e-5
MOMENTUM = 0.01  # PyTorch's momentum is the weight of the new statistics
CAFFE_MEAN = (103.939, 116.779, 123.68)  # of ImageNet, in blue, green, red
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RESNET50_BLOCKS = (3, 4, 6, 3)
VGG16_CONVOLUTIONS = (2, 2, 3, 3, 3)
# repeats, kernel, strides, expansion, filters
EFFICIENTNETB0_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
DROP_CONNECT = 0.2


class Network(nn.Module):
    """Preprocessing, a backbone (none for a plain CNN) and layers: uint8 [B, 1, 48, 48] to logits [B, K].

    Layers of the backbone named in spec["frozen"] get no gradient, and their normalizations use stored statistics;
    blocks before the first trained one run without autograd.
    """

    def __init__(self, spec):
        super().__init__()
        self._spec = spec
        blocks, channels = BACKBONES[spec["network"]]() if spec["network"] != "cnn" else ([], spec["channels"])
        size_px = spec["size_px"] // 32 if blocks else spec["size_px"]
        self._freeze(blocks, set(spec["frozen"]))
        first = next((i for i, block in enumerate(blocks) if _trained(block)), len(blocks))
        self.frozen, self.backbone = nn.Sequential(*blocks[:first]), nn.Sequential(*blocks[first:])
        self.head = stack(spec["layers"], channels, size_px, spec["classes"])
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for name, values in (("mean", CAFFE_MEAN), ("imagenet_mean", IMAGENET_MEAN), ("imagenet_std", IMAGENET_STD)):
            self.register_buffer(name, torch.tensor(values).reshape(1, -1, 1, 1), persistent=False)

    def _freeze(self, blocks, names):
        self._stored = []
        for block in blocks:
            for module in block.modules():
                if getattr(module, "keras_name", "") in names:
                    module.requires_grad_(False)
                    if isinstance(module, nn.BatchNorm2d):
                        self._stored.append(module)

    def train(self, mode=True):
        """Sets the mode; frozen normalizations stay in evaluation mode."""
        super().train(mode)
        for module in self._stored:
            module.eval()
        return self

    def preprocess(self, x):
        """Returns float32 [B, C, S, S] in the range that the network expects."""
        size_px, scaling = self._spec["size_px"], self._spec["scaling"]
        x = x.float()
        if x.shape[-1] != size_px:
            x = functional.interpolate(x, (size_px, size_px), mode="bilinear")
        if self._spec["channels"] == 3:
            x = x.expand(-1, 3, -1, -1)
        if scaling == "unit":
            return x / 255.0
        if scaling == "caffe":
            return x.flip(1) - self.mean
        if scaling == "imagenet":
            return (x / 255.0 - self.imagenet_mean) / self.imagenet_std
        return x

    def forward(self, x):
        """Returns logits."""
        x = self.preprocess(x)
        with torch.no_grad():
            x = self.frozen(x)
        return self.head(self.backbone(x))


def parameters(network) -> dict:
    """Returns the numbers of parameters, statistics included, and of trained ones."""
    statistics = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d)]
    count = sum(parameter.numel() for parameter in network.parameters())
    return {
        "total": count + sum(m.running_mean.numel() + m.running_var.numel() for m in statistics),
        "trained": sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad),
    }


def _trained(block):
    return any(parameter.requires_grad for parameter in block.parameters())


def stack(layers, channels, size_px, classes):
    """Returns the layers that fer_jax specifies in text, and the classifier, as one module."""
    modules, units = [], 0  # units: of the flat output, 0 before it is flat
    for layer in layers:
        kind, size = layer["kind"], layer["size"]
        if kind == "conv":
            same = layer["padding"] == "SAME"
            modules.append(nn.Conv2d(channels, size, tuple(layer["kernel"]), padding="same" if same else 0))
            channels, size_px = size, size_px if same else size_px - layer["kernel"][0] + 1
        elif kind == "dense":
            modules.append(nn.Linear(units, size))
            units = size
        elif kind == "batch_norm":
            norm = nn.BatchNorm1d if units else nn.BatchNorm2d
            modules.append(norm(units or channels, KERAS_EPSILON, MOMENTUM))
        elif kind in ("max_pool", "avg_pool"):
            modules.append(nn.MaxPool2d(2) if kind == "max_pool" else nn.AvgPool2d(2))
            size_px //= 2
        elif kind in ("flatten", "global_avg_pool"):
            whole = kind == "flatten"
            modules += [nn.Flatten()] if whole else [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
            units = channels * size_px**2 if whole else channels
        elif kind == "dropout":
            modules.append(nn.Dropout(layer["rate"]))
        elif kind == "leaky_relu":
            modules.append(nn.LeakyReLU(layer["rate"], inplace=True))
        if "relu" in (kind, layer["activation"]):
            modules.append(nn.ReLU(inplace=True))
    return nn.Sequential(*modules, nn.Linear(units, classes))


def _named(module, name):
    module.keras_name = name
    return module


def _conv_norm(name, inputs, filters, kernel, *, strides=1, groups=1, bias=False, epsilon=KERAS_EPSILON, names=None):
    """Returns a convolution and its normalization, under `<name>_conv` and `<name>_bn` or the two names given.

    With strides it pads both sides equally, like torchvision; the maps have the same sizes as Keras's.
    """
    conv_name, norm_name = names or (f"{name}_conv", f"{name}_bn")
    conv = nn.Conv2d(inputs, filters, kernel, strides, (kernel - 1) // 2, groups=groups, bias=bias)
    return [_named(conv, conv_name), _named(nn.BatchNorm2d(filters, epsilon, MOMENTUM), norm_name)]


def vgg16():
    """Returns (blocks, channels) of VGG16."""
    blocks, inputs = [], 3
    for number, (count, filters) in enumerate(zip(VGG16_CONVOLUTIONS, (64, 128, 256, 512, 512), strict=True), 1):
        for i in range(1, count + 1):
            blocks += [_named(nn.Conv2d(inputs, filters, 3, padding="same"), f"block{number}_conv{i}"), nn.ReLU(True)]
            inputs = filters
        blocks.append(nn.MaxPool2d(2))
    return blocks, inputs


class Bottleneck(nn.Module):
    """A block of ResNet50 with the stride on its first 1x1, as in Keras."""

    def __init__(self, name, inputs, filters, *, strides, first):
        super().__init__()
        options = {"bias": True, "epsilon": RESNET_EPSILON}
        outputs = 4 * filters
        self.shortcut = nn.Sequential(
            *(_conv_norm(f"{name}_0", inputs, outputs, 1, strides=strides, **options) if first else [])
        )
        self.branch = nn.Sequential(
            *_conv_norm(f"{name}_1", inputs, filters, 1, strides=strides, **options),
            nn.ReLU(True),
            *_conv_norm(f"{name}_2", filters, filters, 3, **options),
            nn.ReLU(True),
            *_conv_norm(f"{name}_3", filters, outputs, 1, **options),
        )

    def forward(self, x):
        """Returns the maps of the block."""
        return functional.relu(self.shortcut(x) + self.branch(x), inplace=True)


def resnet50():
    """Returns (blocks, channels) of ResNet50."""
    stem = _conv_norm("conv1", 3, 64, 7, strides=2, bias=True, epsilon=RESNET_EPSILON)
    blocks, inputs = [nn.Sequential(*stem, nn.ReLU(True), nn.MaxPool2d(3, 2, 1))], 64
    for number, (count, filters) in enumerate(zip(RESNET50_BLOCKS, (64, 128, 256, 512), strict=True), 2):
        for i in range(1, count + 1):
            strides = 2 if i == 1 and number > 2 else 1
            blocks.append(Bottleneck(f"conv{number}_block{i}", inputs, filters, strides=strides, first=i == 1))
            inputs = 4 * filters
    return blocks, inputs


class Excite(nn.Module):
    """Squeeze-and-excitation."""

    def __init__(self, name, channels, squeezed):
        super().__init__()
        self.reduce = _named(nn.Conv2d(channels, squeezed, 1), f"{name}_se_reduce")
        self.expand = _named(nn.Conv2d(squeezed, channels, 1), f"{name}_se_expand")

    def forward(self, x):
        """Scales the channels."""
        weights = functional.silu(self.reduce(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.expand(weights))


class MBConv(nn.Module):
    """An inverted residual block of EfficientNet, with stochastic depth per face in training."""

    def __init__(self, name, inputs, filters, *, kernel, strides, expand, drop):
        super().__init__()
        inside, layers = inputs * expand, []
        if expand != 1:
            layers += [*_conv_norm(f"{name}_expand", inputs, inside, 1), nn.SiLU(True)]
        names = f"{name}_dwconv", f"{name}_bn"
        layers += _conv_norm(name, inside, inside, kernel, strides=strides, groups=inside, names=names)
        layers += [nn.SiLU(True), Excite(name, inside, max(1, inputs // 4))]
        self.branch = nn.Sequential(*layers, *_conv_norm(f"{name}_project", inside, filters, 1))
        self.added, self.drop = strides == 1 and inputs == filters, drop

    def forward(self, x):
        """Returns the maps of the block."""
        branch = self.branch(x)
        if not self.added:
            return branch
        if self.training and self.drop:
            kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.drop
            branch = branch * kept / (1 - self.drop)
        return x + branch


def efficientnetb0():
    """Returns (blocks, channels) of EfficientNetB0."""
    blocks, inputs, index = [nn.Sequential(*_conv_norm("stem", 3, 32, 3, strides=2), nn.SiLU(True))], 32, 0
    total = sum(stage[0] for stage in EFFICIENTNETB0_STAGES)
    for number, (repeats, kernel, strides, expand, filters) in enumerate(EFFICIENTNETB0_STAGES, 1):
        for i in range(repeats):
            shape = {"kernel": kernel, "strides": 1 if i else strides, "expand": expand}
            drop = DROP_CONNECT * index / total
            blocks.append(MBConv(f"block{number}{'abcd'[i]}", inputs, filters, drop=drop, **shape))
            inputs, index = filters, index + 1
    return [*blocks, nn.Sequential(*_conv_norm("top", inputs, 1280, 1), nn.SiLU(True))], 1280


BACKBONES = {"vgg16": vgg16, "resnet50": resnet50, "efficientnetb0": efficientnetb0}

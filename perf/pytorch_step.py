#!/usr/bin/env python3
"""PyTorch's side of perf/against_pytorch and perf/gpu/against_pytorch: a local step of a network.

Prints a JSON line for each mode and batch: images/s (median over steps), seconds of each step, peak memory. The networks are
written here with torchvision's structure, because torchvision's own have no CIFAR form. The batch is
fixed and lies in memory, so no data loading is measured. On CUDA: channels_last, TF32 allowed in fp32
only with --tf32, and as --mode eager, torch.compile, or a CUDA graph of the whole step.
"""
import argparse, json, resource, statistics, time

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, before, channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or before != channels:
            self.downsample = nn.Sequential(nn.Conv2d(before, channels, 1, stride, bias=False),
                                            nn.BatchNorm2d(channels))

    def forward(self, x):
        short = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + short)


def resnet18(pixels, classes):
    if pixels < 64:
        layers = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    else:
        layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True),
                  nn.MaxPool2d(3, 2, 1)]
    before = 64
    for channels, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(before, channels, stride), Block(channels, channels, 1)]
        before = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


def resnet20(pixels, classes):
    layers = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)]
    before = 16
    for channels, stride in ((16, 1), (32, 2), (64, 2)):
        layers += [Block(before, channels, stride), Block(channels, channels, 1), Block(channels, channels, 1)]
        before = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


def tiny(pixels, classes):
    return nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
                         Block(8, 16, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes))


def vgg16(pixels, classes):
    layers, before = [], 3
    for channels in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if not channels:
            layers += [nn.MaxPool2d(2)]
            continue
        layers += [nn.Conv2d(before, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
        before = channels
    if pixels < 64:
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512 * 7 * 7, 4096), nn.ReLU(inplace=True), nn.Dropout(),
                         nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(4096, classes))


# (network, small pictures): parameters, so that the two sides train the same thing, but for VGG16, whose
# convolutions have biases here
PARAMETERS = {("resnet18", True): 11173962, ("resnet18", False): 11689512,
              ("vgg16", True): 14728266, ("vgg16", False): 138365992,
              ("resnet20", True): 272474, ("tiny", True): 4082}
NETWORKS = {"resnet18": resnet18, "resnet20": resnet20, "vgg16": vgg16, "tiny": tiny}


def measure(args, batch, mode):
    cuda = args.device == "cuda"
    torch.manual_seed(0)
    classes = 10 if args.pixels < 64 else 1000
    model = NETWORKS[args.model](args.pixels, classes)
    model = model.to(args.device, memory_format=torch.channels_last).train()
    count = sum(p.numel() for p in model.parameters())
    assert count == PARAMETERS[args.model, args.pixels < 64], count
    extra = {"fused": True} if cuda else {}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, **extra)
    x = torch.randn(batch, 3, args.pixels, args.pixels, device=args.device)
    x = x.to(memory_format=torch.channels_last)
    y = torch.randint(0, classes, (batch,), device=args.device)
    loss_of = nn.CrossEntropyLoss()
    narrow = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(args.type)
    scale = 1024.0 if args.type == "fp16" else 1.0

    def forward(x, y):
        with torch.autocast(args.device, dtype=narrow or torch.bfloat16, enabled=narrow is not None):
            return loss_of(model(x), y)

    run = torch.compile(forward) if mode == "compile" else forward

    def step():
        loss = run(x, y)
        optimizer.zero_grad(set_to_none=True)
        (loss * scale if scale != 1 else loss).backward()
        if scale != 1:
            torch._foreach_div_([p.grad for p in model.parameters()], scale)
        optimizer.step()
        return loss

    call = step
    if mode == "graph":
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph):
            step()
        call = graph.replay

    seconds, each = [], 10 if cuda else 1  # on CUDA the host may run ahead, as it does in training
    for i in range(args.warmup + args.steps):
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(each):
            loss = call()
        if cuda:
            torch.cuda.synchronize()
        else:
            loss.item()
        if i >= args.warmup:
            seconds.append((time.perf_counter() - start) / each)
    record = {"program": "pytorch", "version": torch.__version__, "device": args.device, "model": args.model,
              "pixels": args.pixels, "type": args.type, "mode": mode, "batch": batch, "threads": args.threads,
              "images_per_second": batch / statistics.median(seconds), "step_seconds": seconds,
              "peak_memory_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    if cuda:
        record.update(cudnn=torch.backends.cudnn.version(), device_name=torch.cuda.get_device_name(),
                      peak_device_bytes=torch.cuda.max_memory_allocated())
        torch.cuda.reset_peak_memory_stats()
    return record


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--model", choices=NETWORKS, default="resnet18")
    parser.add_argument("--pixels", type=int, default=32)
    parser.add_argument("--type", choices=("fp32", "tf32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--mode", default="eager", help="eager, compile, graph; several with commas")
    parser.add_argument("--batch", default="64", help="several with commas")
    parser.add_argument("--compile-batch", help="compile only at these; all")
    parser.add_argument("--steps", type=int, default=12, help="samples; on CUDA each is the mean of ten steps")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.type == "tf32"
    for mode in args.mode.split(","):
        for batch in args.batch.split(","):
            if mode == "compile" and args.compile_batch and batch not in args.compile_batch.split(","):
                continue
            print(json.dumps(measure(args, int(batch), mode)), flush=True)


if __name__ == "__main__":
    main()

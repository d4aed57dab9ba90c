#!/usr/bin/env python3
"""PyTorch's side of perf/against_dataloader: torchvision's usual reading of a folder of pictures, in worker processes.

usage: perf/dataloader.py FOLDER --size 224 --batch 64 --threads 2 --batches 20 --settle 5    a line of JSON
       perf/dataloader.py --make FOLDER PICTURES                                             the folder

RandomResizedCrop, flip and bytes as they are: to floats they would be made on the device, as twinstream does. Pictures
that are made are 500 x 375 (ImageNet's most usual size), noise of many scales, JPEG of quality 90: about 80 kB.
"""
import argparse, json, os, time


def make(folder, count):
    import numpy as np
    from PIL import Image
    random = np.random.default_rng(1)
    for part, share in (("train", count), ("val", 8)):
        for i in range(share):
            to = os.path.join(folder, part, "ab"[i % 2])
            os.makedirs(to, exist_ok=True)
            size = (500, 375) if i % 3 else (375, 500)
            picture = np.zeros((size[1], size[0], 3))
            for cells, height in ((4, 120), (16, 60), (64, 40), (256, 30)):
                noise = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
                picture += (np.asarray(noise.resize(size, Image.BICUBIC), dtype=float) - 128) * height / 128
            Image.fromarray(np.clip(picture + 128, 0, 255).astype(np.uint8)).save(os.path.join(to, f"{i:05}.jpg"), quality=90)


def read(args):
    import torch
    from torchvision import datasets
    from torchvision.transforms import v2
    transform = v2.Compose([v2.RandomResizedCrop(args.size, antialias=True), v2.RandomHorizontalFlip(), v2.PILToTensor()])
    pictures = datasets.ImageFolder(os.path.join(args.folder, "train"), transform)
    need = (args.settle + args.batches) * args.batch
    order = torch.utils.data.RandomSampler(pictures, replacement=True, num_samples=need)
    loader = torch.utils.data.DataLoader(pictures, args.batch, sampler=order, num_workers=args.threads, prefetch_factor=4)
    for i, _ in enumerate(loader):
        if i + 1 == args.settle:
            begin = time.perf_counter()
    seconds = time.perf_counter() - begin
    print(json.dumps({"program": "PyTorch " + torch.__version__, "pictures_per_second": args.batches * args.batch / seconds}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("pictures", type=int, nargs="?")
    parser.add_argument("--make", action="store_true")
    for name, value in (("size", 224), ("batch", 64), ("threads", 2), ("batches", 20), ("settle", 5)):
        parser.add_argument("--" + name, type=int, default=value)
    args = parser.parse_args()
    if args.make:
        make(args.folder, args.pictures)
    else:
        read(args)


if __name__ == "__main__":
    main()

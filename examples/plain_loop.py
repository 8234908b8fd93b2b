"""Our model and our data in a plain PyTorch loop: no Trainer, no config."""

import torch

import convscape

data = convscape.data_module("digits", batch_size=64)
model = convscape.CNN.for_data(data, channels=[16, 32], kernel_size=5)
optimizer = model.configure_optimizers()
print(model)

for epoch in range(5):
    model.train()
    for images, labels in data.batches("train", epoch):
        loss = model.loss(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.inference_mode():
        hits = sum(int((model(x).argmax(1) == y).sum()) for x, y in data.batches("val"))
    print(f"epoch {epoch + 1}: val/acc {hits / len(data.labels('val')):.3f}")

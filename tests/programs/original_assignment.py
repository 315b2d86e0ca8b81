# The cells of an original assignment; train_data and test_data are there already.
from utils import *  # isort: skip
from model import *

kwargs = {"batch_size": 32, "shuffle": True, "num_workers": 0, "pin_memory": False}
train_loader = torch.utils.data.DataLoader(train_data, **kwargs)
test_loader = torch.utils.data.DataLoader(test_data, **kwargs)

batch_data, batch_label = next(iter(train_loader))
fig = plt.figure()
for i in range(12):
    plt.subplot(3, 4, i + 1)
    plt.imshow(batch_data[i].squeeze(0), cmap="gray")
    plt.title(batch_label[i].item())
plt.close(fig)

train_losses, test_losses, train_acc, test_acc = [], [], [], []
device = torch.device("cpu")
model = Net().to(device)
optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=15, gamma=0.1)
criterion = nn.CrossEntropyLoss()
for _ in range(2):
    train_acc_val, train_loss = train(model, device, train_loader, optimizer, criterion)
    test_acc_val, test_loss = test(model, device, test_loader, F.nll_loss)
    train_acc.append(train_acc_val)
    train_losses.append(train_loss)
    test_acc.append(test_acc_val)
    test_losses.append(test_loss)
    scheduler.step()
plot_loss(train_losses, train_acc, test_losses, test_acc)
get_summary(Net)
data_visualization(train_loader)

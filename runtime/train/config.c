/* config.c - the option table. A row here is the command-line option, the TWINSTREAM_ variable,
 * the key of a config file, a line of --help and a line of the config saved with the run. */
#include "runtime/train/config.h"

#include <stddef.h>

#define AT(field) offsetof(ts_config, field)

static const ts_option model_rows[] = {
    {"model", TS_OPTION_TEXT, AT(model), "resnet18", NULL, 0, 0,
     "network: resnet18, resnet20, vgg16, mlp, tiny; its form follows the pictures' size"},
    {"type", TS_OPTION_CHOICE, AT(type), "auto", "auto|fp32|tf32|bf16", 0, 0,
     "type of activations; auto takes bf16 where the device is made for it; tf32 is fp32 whose "
     "products may round their factors (CUDA); parameters, momentum, gradients and statistics are "
     "fp32 always"},
    {"smoothing", TS_OPTION_REAL, AT(smoothing), "0", NULL, 0, 0.9, "label smoothing"},
    {"ops", TS_OPTION_CHOICE, AT(ops), "auto", "auto|onednn|host|reference", 0, 0,
     "op backend; auto takes the fastest that serves each op"},
    {0}};

static const ts_option data_rows[] = {
    {"data", TS_OPTION_TEXT, AT(data), "synthetic", NULL, 0, 0,
     "cifar10:DIR, cifar100:DIR, synthetic[:train=N,test=N,size=S,classes=C,seed=X], or "
     "records:FILE[,size=224,resize=256,least=0.08], a file that twinstream pack makes of JPEGs"},
    {"batch", TS_OPTION_INT, AT(batch), "64", NULL, 1, 65536,
     "pictures in a rank's local step; with --shares the mean over ranks"},
    {"shares", TS_OPTION_TEXT, AT(shares), "equal", NULL, 0, 0,
     "how a step's pictures are divided among ranks: equal; measured: by the speeds that they show "
     "at the start; or relative speeds, one for each rank, such as 2,1; averages are weighted by "
     "them"},
    {"rebalance", TS_OPTION_CHOICE, AT(rebalance), "auto", "auto|yes|no", 0, 0,
     "divide anew after an epoch in which a rank's steps took 15 % longer than the mean; auto: "
     "with --shares measured"},
    {"crop", TS_OPTION_INT, AT(crop), "4", NULL, 0, 64,
     "pixels of zero padding for random crops of training pictures; 0: none. Of records: a random "
     "part of each picture is resized, whatever the number; 0: its middle"},
    {"flip", TS_OPTION_BOOL, AT(flip), "yes", NULL, 0, 0, "mirror training pictures at random"},
    {"shuffle", TS_OPTION_BOOL, AT(shuffle), "yes", NULL, 0, 0, "a new order in each epoch"},
    {"skew", TS_OPTION_REAL, AT(skew), "0", NULL, 0, 1,
     "share of the training set dealt out to ranks sorted by class (non-IID); 0: none"},
    {"echo", TS_OPTION_REAL, AT(echo), "1", "auto", 1, 1000,
     "e, times that each fresh sample is used (data echoing), 1.5 for instance; auto: a batch is "
     "used again while the next one is late, or an average: cocod, dasgd, overlap-local"},
    {"echo-at", TS_OPTION_CHOICE, AT(echo_at), "example", "example|augmented|batch", 0, 0,
     "what comes back: samples, augmented anew; samples, as they were augmented; whole batches"},
    {"echo-most", TS_OPTION_INT, AT(echo_most), "8", NULL, 1, 1e9,
     "echo auto: times that a batch is used at most, then the step waits"},
    {"prefetch", TS_OPTION_INT, AT(prefetch), "4", NULL, 1, 1024,
     "batches read ahead, in pinned memory and on the device each: records, input-rate"},
    {"loader-threads", TS_OPTION_INT, AT(loader_threads), "auto", "auto", 1, 1024,
     "threads of a rank that read records; auto: its share of the cores that it may use"},
    {"input-rate", TS_OPTION_REAL, AT(input_rate), "0", NULL, 0, 1e12,
     "fresh training samples/s of a rank at most, for studies of slow inputs; 0: as they come"},
    {0}};

static const ts_option optimisation_rows[] = {
    {"epochs", TS_OPTION_REAL, AT(epochs), "10", NULL, 1e-6, 1e6, "passes over the training set"},
    {"steps", TS_OPTION_INT, AT(steps), "0", NULL, 0, 1e15,
     "local steps of each rank; 0: as many as the epochs make"},
    {"learning-rate", TS_OPTION_REAL, AT(learning_rate), "0.05", NULL, 0, 1e6,
     "peak of the schedule, for one rank"},
    {"scale-learning-rate", TS_OPTION_BOOL, AT(scale_learning_rate), "yes", NULL, 0, 0,
     "multiply the learning rate by the number of ranks"},
    {"schedule", TS_OPTION_CHOICE, AT(schedule), "cosine", "constant|step|cosine|one-cycle", 0, 0,
     "learning rate over the run; one-cycle is linear up and linear down"},
    {"warmup", TS_OPTION_REAL, AT(warmup), "0", NULL, 0, 1e6,
     "epochs of linear warm-up; one-cycle with 0 takes a quarter of the run"},
    {"final-ratio", TS_OPTION_REAL, AT(final_ratio), "0", NULL, 0, 1,
     "learning rate that the end of the run comes down to, as a share of the peak: cosine, "
     "one-cycle"},
    {"milestones", TS_OPTION_TEXT, AT(milestones), "0.5,0.75", NULL, 0, 0,
     "schedule step: where the rate is multiplied by gamma, as shares of the run"},
    {"gamma", TS_OPTION_REAL, AT(gamma), "0.1", NULL, 0, 1, "schedule step: factor at a milestone"},
    {"momentum", TS_OPTION_REAL, AT(momentum), "0.9", NULL, 0, 0.99999, "of SGD"},
    {"nesterov", TS_OPTION_BOOL, AT(nesterov), "no", NULL, 0, 0, "Nesterov momentum"},
    {"weight-decay", TS_OPTION_REAL, AT(weight_decay), "0.0005", NULL, 0, 1e3,
     "added to the gradient before momentum"},
    {"decay-all", TS_OPTION_BOOL, AT(decay_all), "yes", NULL, 0, 0,
     "weight decay also on batch norm and biases, as PyTorch does by default"},
    {"seed", TS_OPTION_INT, AT(seed), "1", NULL, 0, 4e18,
     "of initial weights, order and augmentation"},
    {0}};

static const ts_option algorithm_rows[] = {
    {"algorithm", TS_OPTION_CHOICE, AT(algorithm), "cocod",
     "ssgd|pipe|od|local|cocod|dasgd|overlap-local", 0, 0,
     "distributed SGD: S-SGD, Pipe-SGD, OD-SGD, Local-SGD, CoCoD-SGD, DaSGD, Overlap-Local-SGD"},
    {"momentum-policy", TS_OPTION_CHOICE, AT(momentum_policy), "keep", "keep|average|zero", 0, 0,
     "what a merge does to momentum", "local|cocod|dasgd|overlap-local"},
    {"statistics", TS_OPTION_CHOICE, AT(statistics), "consensus", "consensus|average", 0, 0,
     "batch norm's running statistics: averaged for evaluation only, or at each merge too",
     "local|cocod|dasgd|overlap-local"},
    {0}};

static const ts_option device_rows[] = {
    {"device", TS_OPTION_TEXT, AT(device), "auto", NULL, 0, 0,
     "auto, cuda or host; auto takes CUDA when a GPU answers"},
    {"communicator", TS_OPTION_CHOICE, AT(communicator), "auto", "auto|self|nccl|ring|staged|mpi",
     0, 0,
     "collectives: nccl; ring is our own over MPI send and receive; staged is that ring for a "
     "GPU's memory; mpi is MPI_Allreduce"},
    {"nccl-ctas", TS_OPTION_INT, AT(nccl_ctas), "4", NULL, 1, 64,
     "blocks that an NCCL collective may take: more move more, and leave compute less"},
    {"bucket-kib", TS_OPTION_INT, AT(bucket_kib), "4096", NULL, 1, 1 << 22,
     "ssgd: gradients in a bucket, KiB"},
    {"timeout", TS_OPTION_INT, AT(timeout), "120", NULL, 1, 1e6,
     "seconds without progress after which a collective fails and names the silent ranks"},
    {"run-ahead", TS_OPTION_INT, AT(run_ahead), "4", NULL, 1, 1024,
     "local steps that the host may be ahead of the device"},
    {"graphs", TS_OPTION_BOOL, AT(graphs), "yes", NULL, 0, 0,
     "capture the local step once and replay it"},
    {"pace", TS_OPTION_REAL, AT(pace), "0", NULL, 0, 1e6,
     "host device: seconds that forward and backward take at least, spread over the layers: a "
     "worker of that speed, for studies of many workers on few cores; 0: as fast as it goes"},
    {0}};

static const ts_option run_rows[] = {
    {"run", TS_OPTION_TEXT, AT(run), "", NULL, 0, 0,
     "folder of the run; empty: runs/<time>-<model>-<algorithm>"},
    {"label", TS_OPTION_TEXT, AT(label), "", NULL, 0, 0,
     "what tells this run from others, for reports: the network it ran on, say"},
    {"log-every", TS_OPTION_INT, AT(log_every), "20", NULL, 1, 1e9,
     "local steps in a window: a line of metrics.jsonl"},
    {"settle", TS_OPTION_INT, AT(settle), "0", NULL, 0, 1e15,
     "local steps at the start that the times of run.json leave out; benchmarks let a round pass"},
    {"evaluate-every", TS_OPTION_REAL, AT(evaluate_every), "1", NULL, 0, 1e6,
     "epochs between evaluations of the consensus model; 0: at the end only"},
    {"checkpoint-every", TS_OPTION_REAL, AT(checkpoint_every), "0", NULL, 0, 1e6,
     "epochs between checkpoints; 0: only when the run is told to stop"},
    {"keep", TS_OPTION_INT, AT(keep), "2", NULL, 1, 1e6, "checkpoints to keep"},
    {"resume", TS_OPTION_TEXT, AT(resume), "", NULL, 0, 0,
     "a checkpoint, or a run's folder for its newest; auto: this run's newest if there is one"},
    {"weights", TS_OPTION_TEXT, AT(weights), "", NULL, 0, 0,
     "what eval evaluates, or where train starts: a .safetensors file with torchvision's names, a "
     "checkpoint, or a run's folder for its model or its newest checkpoint, the later one"},
    {"export", TS_OPTION_BOOL, AT(export_model), "yes", NULL, 0, 0,
     "write the consensus model as model.safetensors at the end"},
    {"timeline", TS_OPTION_BOOL, AT(timeline), "no", NULL, 0, 0,
     "write timeline.json, a Chrome trace of both streams of every rank, for Perfetto"},
    {"verbose", TS_OPTION_BOOL, AT(verbose), "no", NULL, 0, 0, "debug messages, trails of errors"},
    {0}};

ts_status ts_config_open(ts_config *config, ts_option_set **set_p)
{
    const ts_option_group groups[] = {
        {"Model", model_rows, config},
        {"Data", data_rows, config},
        {"Optimisation", optimisation_rows, config},
        {"Algorithm", algorithm_rows, config, "algorithm"},
        {"Algorithm's own", ts_algorithm_options, &config->algorithm_config, "algorithm"},
        {"Compression", ts_compression_options, &config->compression, "compress"},
        {"Device and communication", device_rows, config},
        {"Run", run_rows, config},
    };
    return ts_option_set_open(groups, (int)(sizeof groups / sizeof *groups), set_p);
}

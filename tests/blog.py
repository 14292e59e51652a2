"The published experiment's code, with only the imports and the data's path changed; small enough for a test"
from fastai.vision.all import *
from specnorm_fastai.all import *

def run(path, df, fold, bs):
    set_seed(0)
    x = AudioTensor.create(path/'audio'/df.filename[0])
    assert x.ndim==2 and x.sr>0
    cfg = AudioConfig.BasicSpectrogram()
    a2s = AudioToSpec.from_cfg(cfg)
    auds = DataBlock(blocks=(AudioBlock, CategoryBlock), get_x=ColReader("filename", pref=path/"audio"), splitter=CrossValidationSplitter(fold=fold),
                     item_tfms=[ResizeSignal(5000)], batch_tfms=[AudioNormalize(), a2s], get_y=ColReader("category"))
    dbunch = auds.dataloaders(df, bs=bs, num_workers=0)
    assert dbunch.one_batch()[0].shape==(bs,1,201,401)
    global_stats,channel_stats = StatsRecorder(red_dims=(0,2,3)),StatsRecorder(red_dims=(0,1,3))
    with torch.no_grad():
        for idx,(x,y) in enumerate(iter(dbunch.train)):
            global_stats.update(x)
            channel_stats.update(x)
    global_mean,global_std = global_stats.mean,global_stats.std
    channel_mean,channel_std = channel_stats.mean,channel_stats.std
    assert global_mean.shape==(1,1,1,1) and channel_std.shape==(1,1,201,1) and global_stats.nobservations==len(dbunch.train)*bs==len(dbunch.train_ds)
    for norm in (SpecNormalize(global_mean, global_std, axes=(0,2,3)), SpecNormalize(channel_mean, channel_std, axes=(0,1,3))):
        block = DataBlock(blocks=(AudioBlock, CategoryBlock), get_x=ColReader("filename", pref=path/"audio"), splitter=CrossValidationSplitter(fold=fold),
                          item_tfms=[ResizeSignal(5000)], batch_tfms=[AudioNormalize(), a2s, norm], get_y=ColReader("category"))
        dls = block.dataloaders(df, bs=bs, num_workers=0)
        xb = torch.cat([x.plain() for x,_ in dls.train])
        assert abs(xb.mean())<.05 and abs(xb.std()-1)<.05  # no tail is dropped here; only clips over 5 s are cropped elsewhere
    model = make_xresnet_grayscale(xresnet18(pretrained=False, n_out=dls.c), n_in=1)
    learn = Learner(dls, model, metrics=[accuracy])
    learn.dls = DataLoaders(dls.train.new(n=8), dls.valid.new(n=8))  # the network is slow on a CPU
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 1e-3)
    assert 0<=learn.final_record[-1]<=1

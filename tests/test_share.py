"SpecModel: equal to the learner, saved and loaded, many files, long recordings, ONNX, the command line, and what was saved by earlier versions"
import json,os,re,shutil,subprocess,sys,tracemalloc,warnings
from functools import partial
from pathlib import Path
import numpy as np,pandas as pd,pytest,soundfile as sf,soxr,torch,yaml
from fastai.callback.core import Callback
from fastai.data.all import CategoryBlock,ColReader,DataBlock,MultiCategoryBlock,RegressionBlock,Transform,set_seed
from fastai.learner import load_learner
from torch import nn

from specnorm_fastai import share
from specnorm_fastai.callback import AverageCrops
from specnorm_fastai.augment import AddNoise,CropTime,Delta,MaskFreq,SignalMixUp,TfmResize
from specnorm_fastai.cli import predict as main_predict
from specnorm_fastai.core import AudioTensor
from specnorm_fastai.data import AudioBlock,AudioPadType,CrossValidationSplitter,DownmixMono,RemoveSilence,Resample,ResizeSignal,audio_table
from specnorm_fastai.features import AudioConfig,AudioToMFCC,AudioToSpec
from specnorm_fastai.frontend import SpecFrontend
from specnorm_fastai.learner import small_cnn,spec_learner
from specnorm_fastai.share import Prediction,SpecModel,load_spec_model,model_card,save_spec_model
from specnorm_fastai.specstats import SpecStats
from specnorm_fastai.transforms import AudioNormalize,SpecNormalize
from specnorm_fastai.ways_tfms import *

pytestmark = [pytest.mark.filterwarnings('ignore:.*filters hold no frequency','ignore:.*unequal lengths','ignore:load_learner','ignore:.*longer than the [0-9.]+ s that this model','ignore::DeprecationWarning','ignore::FutureWarning')]
root = Path(__file__).parents[1]
small = partial(small_cnn, width=4)
def mel(**kw): return AudioToSpec.from_cfg(AudioConfig.BasicMelSpectrogram(**{**dict(n_fft=512, hop_length=160, n_mels=20), **kw}))
def close(a, b, tol): torch.testing.assert_close(torch.as_tensor(a).as_subclass(torch.Tensor), torch.as_tensor(b).as_subclass(torch.Tensor), rtol=0, atol=tol)

@pytest.fixture(scope='module')
def few(synthetic):
    df = pd.read_csv(synthetic/'meta/synthetic.csv')[:48]
    return df.assign(path=[str(synthetic/'audio'/f) for f in df.filename])

def loaders(df, batch_tfms, block=None, y=CategoryBlock, get_y=None, item_tfms=None):
    return DataBlock((block or AudioBlock(crop_signal_to=600), y), get_x=ColReader('path'), get_y=get_y or ColReader('category'), splitter=CrossValidationSplitter(), item_tfms=item_tfms, batch_tfms=batch_tfms).dataloaders(df, bs=8, num_workers=0)

def made(df, batch_tfms=None, arch=small, block=None, item_tfms=None, **kw):
    "A learner whose network says something, without training"
    set_seed(3)
    learn = spec_learner(loaders(df, [AudioNormalize(), mel(), SpecNormalize(axes='frequency')] if batch_tfms is None else batch_tfms, block, item_tfms=item_tfms), arch, **kw)
    learn.model.eval()
    head = [m for m in learn.model.modules() if isinstance(m, nn.Linear)][-1]
    with torch.no_grad():  # answers that differ from clip to clip, and are neither 0 nor 1
        z = learn.model(learn.dls.valid.one_batch()[0].as_subclass(torch.Tensor))-head.bias
        head.weight.div_(z.std(0).mean()); head.bias.copy_(-z.mean(0)/z.std(0).mean())
    return learn

@pytest.fixture(scope='module')
def learn(few): return made(few)
@pytest.fixture(scope='module')
def model(learn): return SpecModel.from_learner(learn)
@pytest.fixture(scope='module')
def folder(learn, tmp_path_factory): return save_spec_model(learn, tmp_path_factory.mktemp('m')/'model')

@pytest.fixture(scope='module')
def clips(tmp_path_factory):
    "Short and long files of several rates and channels"
    d,r,res = tmp_path_factory.mktemp('clips'),np.random.default_rng(0),[]
    for sr,ch,sec in ((16000,1,.6),(44100,2,1.3),(8000,1,.4),(22050,1,.6),(48000,3,.9),(16000,1,2.)):
        t = np.arange(int(sr*sec))/sr
        x = np.stack([.3*np.sin(2*np.pi*(300+400*c)*t*(1+t)) for c in range(ch)], 1)*np.linspace(.2,1,len(t))[:,None]+r.normal(size=(len(t),ch))*.01
        sf.write(d/f'{sr}_{ch}_{sec}.wav', x, sr); res.append(d/f'{sr}_{ch}_{sec}.wav')
    return res

def answers(learn, files):
    with learn.no_bar(): return torch.stack([learn.predict(f)[2].as_subclass(torch.Tensor) for f in files])

# ---- the learner's answers, and the same bits after a round trip

PIPES = dict(
    frequency=lambda: dict(), as_is=lambda: dict(batch_tfms=[mel(), SpecNormalize()]), none=lambda: dict(batch_tfms=[mel()]), given=lambda: dict(batch_tfms=[mel(), SpecNormalize(10., 12.)]),
    polyphase=lambda: dict(block=AudioBlock(sample_rate=None, force_mono=False), item_tfms=[Resample(12000, 'polyphase'),DownmixMono(),ResizeSignal(500, AudioPadType.Zeros_After)]),
    zeros=lambda: dict(block=AudioBlock(), item_tfms=ResizeSignal(700)), repeat=lambda: dict(block=AudioBlock(), item_tfms=ResizeSignal(900, AudioPadType.Repeat)),
    loud=lambda: dict(block=AudioBlock(), item_tfms=ResizeSignal(400, AudioPadType.Zeros_After, min_energy=-3)), any_length=lambda: dict(block=AudioBlock()),
    croptime=lambda: dict(block=AudioBlock(), batch_tfms=[mel(), CropTime(500), SpecNormalize()]), resized=lambda: dict(batch_tfms=[mel(), SpecNormalize(), TfmResize((24,40))]),
    top_db=lambda: dict(batch_tfms=[mel(top_db=40.), SpecNormalize(axes='frequency')]), mfcc=lambda: dict(batch_tfms=[AudioToMFCC.from_cfg(AudioConfig.BasicMFCC(n_mfcc=13, melkwargs=dict(n_fft=512, n_mels=30))), SpecNormalize(axes='frequency')]),
    vits=lambda: dict(batch_tfms=[AudioToSpec.from_cfg(AudioConfig.VITS()), SpecNormalize()]), gammatone=lambda: dict(batch_tfms=[AudioToSpec.from_cfg(AudioConfig.Gammatone(n_filters=20)), SpecNormalize()]),
    hamming=lambda: dict(batch_tfms=[AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram(window_fn=torch.hamming_window, wkwargs=dict(periodic=False))), SpecNormalize()]),
    item=lambda: dict(batch_tfms=[RMSNormalize(.2), mel(), ItemNormalize()]), bands=lambda: dict(batch_tfms=[PeakNormalize(), mel(), ItemNormalize('band', 4)]), minmax=lambda: dict(batch_tfms=[mel(), MinMaxNormalize()]),
    minmax_given=lambda: dict(batch_tfms=[mel(), MinMaxNormalize(-30., 40., clip=True)]), db=lambda: dict(batch_tfms=[LevelNormalize(), mel(), DBReference(top_db=50.), SpecNormalize()]),
    sliding=lambda: dict(batch_tfms=[AudioSlidingNormalize(), mel(), SlidingNormalize(30)]), robust=lambda: dict(batch_tfms=[mel(), RobustNormalize(12., 20.)]), ast=lambda: dict(batch_tfms=[mel(), ASTNormalize(10.1, 7.3)]),
    fill=lambda: dict(batch_tfms=[mel(), SpecNormalize(), FillFrames(0.)]), running=lambda: dict(batch_tfms=[mel(), RunningNormalize.from_stats(SpecStats(np.linspace(5, 20, 20)[None], np.linspace(5, 9, 20)[None], count=99), unchecked=True)]),
    pcen=lambda: dict(batch_tfms=[mel(to_db=False), PCEN(), SpecNormalize(axes='frequency')]), delta=lambda: dict(batch_tfms=[mel(), Delta(), SpecNormalize()]),
    augmented=lambda: dict(item_tfms=[AddNoise()], batch_tfms=[AudioNormalize(), mel(), SpecNormalize(), MaskFreq()]), mixed=lambda: dict(batch_tfms=[SignalMixUp(), AudioNormalize(), mel(), SpecNormalize()]),
    bfloat16=lambda: dict(precision='bfloat16'), contiguous=lambda: dict(channels_last=False), xresnet18=lambda: dict(arch='xresnet18'))

@pytest.mark.parametrize('name', PIPES)
def test_answers_are_the_learners_and_stay_after_a_round_trip(few, clips, tmp_path, name):
    "1e-4 of probability: a batch is padded and cropped by other code than an item, so that sums run in another order; bfloat16 keeps 8 bits"
    learn = made(few, **PIPES[name]())
    model = SpecModel.from_learner(learn)
    want = answers(learn, clips)
    assert (want[0]-want[1]).abs().max()>1e-3  # the network tells clips apart
    got = torch.stack([model.predict(f).probabilities for f in clips])
    close(got, want, 2e-2 if name=='bfloat16' else 1e-4)
    again = load_spec_model(model.save(tmp_path/'m'))
    assert again.settings==model.settings and (model.stats is None)==(again.stats is None)
    for f,p in zip(clips, got): assert torch.equal(again.predict(f).probabilities, p)

def both(few): return loaders(few.assign(both=few.category+';loud'), [AudioNormalize(), mel(), SpecNormalize()], y=MultiCategoryBlock, get_y=ColReader('both', label_delim=';'))

@pytest.mark.parametrize('name', ['frequency','zeros','repeat','loud','polyphase','multi'])
def test_the_mean_over_crops_is_that_of_the_learner(few, clips, tmp_path, name):
    "1e-4 as above; the crops of the first clip, whose length is the model's or less, are one or shifted"
    learn = spec_learner(both(few), small, cbs=AverageCrops(3)) if name=='multi' else made(few, **PIPES[name](), cbs=AverageCrops(3))
    model,one = SpecModel.from_learner(learn),SpecModel.from_learner(learn, skip='AverageCrops')
    assert model.crops==3 and one.crops==1 and 'the mean over 3 crops' in repr(model)
    want,got = answers(learn, clips),torch.stack([model.predict(f).probabilities for f in clips])
    close(got, want, 1e-4)
    assert (torch.stack([one.predict(f).probabilities for f in clips])-want).abs().max()>1e-3  # else it tests nothing
    again = load_spec_model(save_spec_model(learn, tmp_path/'m'))
    assert again.settings==model.settings
    table = again.predict_files(clips, bs=4, probs=True, progress=False)
    close(table[[f'p_{l}' for l in model.vocab]].to_numpy(np.float32), got, 1e-5)
    assert main_predict([str(tmp_path/'m'), *map(str, clips), '--out', str(tmp_path/'o.csv')])==0
    close(pd.read_csv(tmp_path/'o.csv').probability.to_numpy(np.float32), table.probability.to_numpy(np.float32), 1e-5)

def test_crops_are_told_of(few, clips, tmp_path):
    learn = made(few, cbs=AverageCrops(3)); model = SpecModel.from_learner(learn)
    assert model.settings['version']==2 and 'crops' not in SpecModel.from_learner(learn, skip='AverageCrops').settings
    assert torch.equal(model.predict_long(clips[5], hop=.3).probabilities, SpecModel.from_learner(learn, skip='AverageCrops').predict_long(clips[5], hop=.3).probabilities)
    with warnings.catch_warnings(): warnings.simplefilter('error'); model.predict(np.random.default_rng(0).normal(size=3*model.clip_samples)*.1, model.sr)  # all of it is heard
    with pytest.warns(UserWarning, match='longer than the 1.8 s'): model.predict(np.random.default_rng(0).normal(size=4*model.clip_samples)*.1, model.sr)
    assert model.predict(np.zeros(40000), 16000).silent
    late = np.zeros(40000); late[-9000:] = .1*np.random.default_rng(0).normal(size=9000)
    assert not model.predict(late, 16000).silent and SpecModel.from_learner(learn, skip='AverageCrops').predict(late, 16000).silent
    with pytest.warns(UserWarning, match='to_onnx: this model answers by the mean over 3 crops of 0.6 s, and the file by one'): model.to_onnx(tmp_path/'m.onnx')
    for n in (0,True,2.): 
        with pytest.raises(ValueError, match='crops: expected a whole number'): SpecModel(model.frontend, model.model, model.vocab, crops=n)
    with pytest.raises(ValueError, match='crops: expected 1, since clips keep their length'): SpecModel(SpecFrontend(mel(), 16000, (0.,1.)), model.model, model.vocab, crops=2)
    with pytest.raises(ValueError, match="takes the mean of the 'outputs', and a SpecModel that of probabilities; expected mean_of='softmax'"): SpecModel.from_learner(made(few, cbs=AverageCrops(3, 'outputs')))
    old = model.__dict__.pop('crops'); assert old==3 and model.predict(clips[0]).label in model.vocab  # pickled before there were crops

@pytest.mark.parametrize('name,n,says', [('frequency',1,'longer ones are cut to their middle, shorter ones padded'), ('loud',1,'one piece is heard, the middle one of those at most 3 dB below the loudest, shorter'), ('repeat',1,'to their middle, shorter ones repeated'),
    ('frequency',3,'3 pieces are heard, evenly spread, and their probabilities averaged'), ('loud',3,'3 pieces are heard, evenly spread over those at most 3 dB below the loudest, and their'), ('any_length',1,'Clips: any length')])
def test_the_card_tells_what_is_heard_of_a_clip(few, name, n, says):
    assert says in model_card(SpecModel.from_learner(made(few, **PIPES[name](), cbs=AverageCrops(n))))

def test_stereo_stays_stereo_and_other_channels_are_refused(few, clips, tmp_path):
    df = few.copy()
    for i,f in enumerate(df.path): x,sr = sf.read(f); sf.write(tmp_path/f'{i}.wav', np.stack([x,x[::-1]], 1), sr)
    df['path'] = [str(tmp_path/f'{i}.wav') for i in range(len(df))]
    learn = made(df, block=AudioBlock(force_mono=False, crop_signal_to=500))
    model = load_spec_model(save_spec_model(learn, tmp_path/'m'))
    assert model.channels==2
    close(model.predict(clips[1]).probabilities, answers(learn, clips[1:2])[0], 1e-4)
    with pytest.raises(ValueError, match='takes 2 channels and does not mix them down, got 1 in .*16000_1'): model.predict(clips[0])

def test_a_loaded_learner_gives_the_same_model(learn, model, clips, tmp_path):
    learn.export(tmp_path/'l.pkl')
    again = SpecModel.from_learner(load_learner(tmp_path/'l.pkl'))
    assert torch.equal(again.predict(clips[1]).probabilities, model.predict(clips[1]).probabilities)

def test_arrays_and_tensors_are_files(model, clips):
    for f in clips:
        x,sr = sf.read(f, dtype='float32', always_2d=True); want = model.predict(f)
        for o in (x.T, torch.from_numpy(x.T.copy()), *([x[:,0], x[:,0].tolist()] if x.shape[1]==1 else [])): close(model.predict(o, sr).probabilities, want.probabilities, 1e-6)
        a = AudioTensor.create(f); assert torch.equal(model.predict(a).probabilities, want.probabilities) and model.predict(a, sr=sr).label==want.label

@pytest.mark.parametrize('x,sr,what', [(np.zeros(9000), None, 'expected sr=... in Hz'), (np.zeros(9000), 0, 'sr: expected'), (np.zeros(9000, int), 16000, 'expected floating point'), (np.zeros(0), 16000, 'no samples'),
    (np.zeros((9000,2)), 16000, 'other way round'), (np.zeros((2,1,900)), 16000, r'\(channel, time\)'), (np.full(9000, np.nan), 16000, 'NaN or Inf in 9000'), (np.zeros(100), 16000, 'too short: expected at least'),
    ('nowhere.wav', None, 'no such audio file'), ('a.wav', 16000, 'sr: expected None'), (3, 16000, 'expected a file, an array'), (AudioNormalize()(AudioTensor(torch.rand(1,9000), sr=16000)), None, 'normalized already'),
    (AudioTensor(torch.rand(1,9000), sr=16000), 8000, 'has 16000 Hz'), (AudioTensor(torch.rand(1,9000)), None, 'sample rate'), (['a','b'], 16000, 'array of numbers')], ids=str)
def test_bad_sound_is_named(model, x, sr, what):
    with pytest.raises((ValueError,TypeError,FileNotFoundError), match=what): model.predict(x, sr)

def test_several_labels(few, clips, tmp_path):
    df = few.assign(both=few.category+';loud')
    dls = loaders(df, [AudioNormalize(), mel(), SpecNormalize()], y=MultiCategoryBlock, get_y=ColReader('both', label_delim=';'))
    set_seed(0); learn = spec_learner(dls, small)
    with learn.no_bar(): want = learn.predict(clips[0])
    model = load_spec_model(save_spec_model(learn, tmp_path/'m'))
    p = model.predict(clips[0])
    assert model.task=='multi' and p.label==tuple(want[0]) and 'any number' in repr(model); close(p.probabilities, want[2], 1e-4)
    t = model.predict_files(clips); assert t.label[0]==p.label
    assert model.predict_long(clips[-1], hop=.3).labels[0] is not None

def test_a_label_lies_above_the_threshold(model):
    m = SpecModel(model.frontend, model.model, model.vocab, 'multi', .5)
    p = torch.zeros(len(m.vocab)); p[1],p[2] = .5,.51
    assert m._label(p)==(m.vocab[2],)

def test_the_likeliest_classes_are_counted():
    p = Prediction('b', torch.tensor([.1,.7,.2]), ['a','b','c'])
    assert [l for l,_ in p.top(2)]==[l for l,_ in p.top(np.int64(2))]==['b','c'] and len(p.top(9))==3 and p.top(0)==[]
    for k in (-1,1.5,True,None,'2'):
        with pytest.raises(ValueError, match='^k: expected a whole number of 0 or more, got '): p.top(k)

def test_what_cannot_be_carried_is_refused(few, learn):
    class Louder(Transform):
        def encodes(self, x:AudioTensor): return x*2
    class Twice(Callback):
        def before_batch(self): self.learn.xb = tuple(x*2 for x in self.xb)
    for kw,what in ((dict(item_tfms=[Louder()]),'holds Louder'), (dict(item_tfms=[RemoveSilence()]),'holds RemoveSilence'), (dict(cbs=[Twice()]),'callback Twice'),
                    (dict(block=AudioBlock(sample_rate=None), item_tfms=[ResizeSignal(500, AudioPadType.Zeros_After),Resample(8000)]),'ResizeSignal behind Resample'), (dict(loss_func=nn.CrossEntropyLoss()),'softmax or a sigmoid')):
        with pytest.raises(ValueError, match=f'learn: .*{what}'): SpecModel.from_learner(made(few, **kw))
    assert SpecModel.from_learner(made(few, cbs=[Twice()]), skip='Twice').vocab==learn.dls.vocab
    assert SpecModel.from_learner(made(few, item_tfms=[Louder()]), skip=['Louder']).sr==16000
    dls = loaders(few.assign(v=1.), [mel(), SpecNormalize()], y=RegressionBlock, get_y=ColReader('v'))
    with pytest.raises(ValueError, match='predicts numbers has no labels'): SpecModel.from_learner(spec_learner(dls, small))
    with pytest.raises(TypeError, match='expected a Learner, got str'): SpecModel.from_learner('learn')

def test_truth_values_are_no_labels(few, monkeypatch):
    learn = made(few.assign(category=few.category=='hiss'))
    monkeypatch.setattr(share, 'deepcopy', None)  # before anything is copied or read
    with pytest.raises(ValueError, match="vocab: expected labels that are strings or numbers, got False: .*'bird' for True"): SpecModel.from_learner(learn)

def test_digital_silence_is_told_of(folder, model, clips, tmp_path, capsys):
    from specnorm_fastai.cli import predict
    for x in (np.zeros(16000), np.full(16000, .25), np.zeros((2,16000)), np.r_[np.ones(2000), np.zeros(16000), np.ones(2000)]):
        p = model.predict(x, 16000); assert p.silent and 'DIGITAL SILENCE' in repr(p)  # of the last one it hears the middle
    for sr in (16000,44100,8000): assert model.predict(np.full(2*sr, .25), sr).silent, sr  # a resampler's last digits are no sound
    gap = np.random.default_rng(0).normal(size=2*44100)*.1; gap[44100//2:-44100//2] = 0; assert model.predict(gap, 44100).silent  # 0.6 s of its middle are heard
    gap[44100] = .1; assert not model.predict(gap, 44100).silent
    x = np.random.default_rng(0).normal(size=16000)*.1; assert model.predict(np.stack([x,-x]), 16000).silent  # what is heard of both is nothing
    for x in (np.full(16000, 1e-8)*np.r_[np.ones(8000), -np.ones(8000)], clips[0]): p = model.predict(x, None if x is clips[0] else 16000); assert not p.silent and 'SILENCE' not in repr(p)
    sf.write(mute:=tmp_path/'mute.wav', np.zeros(20000), 16000)
    assert model.predict_files([clips[0],mute]).silent.tolist()==[False,True]
    assert predict([str(folder), str(clips[0]), str(mute), '--out', str(tmp_path/'o.json')])==0
    assert [r['silent'] for r in json.loads((tmp_path/'o.json').read_text())]==[False,True] and '1 of 2 files are digital silence' in capsys.readouterr().err
    assert predict([str(folder), str(clips[0]), str(mute)])==0
    assert [l.split(',')[3] for l in capsys.readouterr().out.split()]==['silent','False','True']

@pytest.mark.parametrize('sr', [16000,8000,44100])
def test_silent_slices_of_a_recording_are_told_of(folder, model, tmp_path, capsys, monkeypatch, sr):
    from specnorm_fastai.cli import predict
    monkeypatch.setattr(share, '_piece', 3001)
    x = np.random.default_rng(0).normal(size=(4*sr,2))*.1; x[sr:3*sr] = 0
    sf.write(f:=tmp_path/'gap.wav', x, sr, subtype='FLOAT')
    r = model.predict_long(f, hop=.25)
    want = np.zeros(16, bool); want[4:12] = True
    assert r.silent.tolist()==want.tolist()==r.table().silent.tolist() and 'digital silence' in repr(r)
    m = r.table(merge=True); assert m.silent.sum()>=1 and np.isclose((m.end-m.start)[m.silent].sum(), want.sum()*.25)
    assert predict([str(folder), str(f), '--hop', '.25', '--out', str(tmp_path/'o.csv')])==0
    assert pd.read_csv(tmp_path/'o.csv').silent.tolist()==want.tolist() and '1 of 1 files hold digital silence' in capsys.readouterr().err
    assert model.predict_long(np.full(3*sr+7, .25), sr, hop=.23).silent.all()

@pytest.mark.parametrize('old,new,h', [(16000,16000,7),(44100,16000,301),(8000,16000,333),(11025,44100,51)])
def test_slices_of_a_recording_are_looked_at_in_its_own_samples(old, new, h):
    r = np.random.default_rng(0); x = np.repeat(r.normal(size=(2,9)), 1700, 1)
    whole,parts = (share._Constant(h, old, new) for _ in range(2))
    whole(x)
    for a in range(0, x.shape[1], 419): parts(x[:,a:a+419])
    at = np.arange(x.shape[1])*new//(h*old); n = at[-1]+1
    want = [bool((x[:,at==i]==x[:,at==i][:,:1]).all()) for i in range(n)]
    assert whole.finish(n).tolist()==parts.finish(n).tolist()==want and set(want)=={True,False} and len(whole.finish(n+1))==n+1
    one = share._Constant(1, 8000, 16000); one(x); assert not one.finish(9).any()

class Moody(nn.Module):
    "Fails where something loud is in the batch"
    def __init__(self, how): super().__init__(); self.how,self.seen = how,0
    def forward(self, x):
        self.seen += 1
        loud = x.amax((1,2,3))>30
        if self.how=='nan': return torch.where(loud[:,None], torch.nan, x.new_zeros(len(x), 2))
        if loud.any(): raise self.how('no kernel\nfor this')
        return x.new_zeros(len(x), 2)

@pytest.mark.parametrize('how,what', [(RuntimeError,'RuntimeError: no kernel$'), (IndexError,'IndexError: no kernel$'), ('nan','NaN or Inf for')], ids=str)
def test_a_file_on_which_the_network_fails_leaves_the_others_their_answers(tmp_path, capsys, how, what):
    import specnorm_fastai.cli as cli
    files = []
    for k,gain in enumerate((.01,1.,.01,1.,.01)): sf.write(tmp_path/f'{k}.wav', np.random.default_rng(k).uniform(-.9, .9, 8000)*gain, 16000); files.append(tmp_path/f'{k}.wav')
    m = SpecModel(SpecFrontend(AudioConfig.BasicMelSpectrogram(n_fft=512, n_mels=20, top_db=None), 16000, clip_samples=8000), Moody(how), ['a','b'])
    for bs in (1,3,32):
        t = m.predict_files(files, bs=bs, errors='skip', progress=False)
        assert t.error.notna().tolist()==t.probability.isna().tolist()==t.silent.isna().tolist()==[False,True,False,True,False]
        assert t.error.str.contains(what).sum()==2 and all(str(files[k]) in t.error[k] for k in (1,3)) and t.label[[0,2,4]].tolist()==['a']*3
    with pytest.raises(ValueError, match='files: 2 of 5 cannot be used:(.|\n)*1.wav(.|\n)*3.wav'): m.predict_files(files, bs=2, progress=False)
    with pytest.MonkeyPatch.context() as mp:
        mp.setattr(share, 'load_spec_model', lambda p: m)
        for more in ([],['--hop','.25']):
            assert cli.predict(['model', *map(str, files), *more, '--skip-errors', '--out', str(tmp_path/'o.csv')])==3
            t = pd.read_csv(tmp_path/'o.csv'); assert t.path[t.error.notna()].tolist()==[str(files[1]),str(files[3])] and '2 of 5 files' in capsys.readouterr().err

@pytest.mark.parametrize('errors', ['raise','skip'])
def test_a_batch_that_does_not_fit_into_memory_says_to_lower_bs(model, clips, monkeypatch, errors):
    class Hungry(nn.Module):
        def __init__(self): super().__init__(); self.seen = []
        def forward(self, x):
            self.seen.append(len(x))
            if len(x)>2: raise MemoryError('no room')
            return x.new_zeros(len(x), 2)
    m = SpecModel(SpecFrontend(mel(), 16000, mono=True, clip_samples=8000), Hungry(), ['a','b'])
    files = [clips[1]]*6
    with pytest.raises(RuntimeError, match=r'^bs: memory ran out with 6 clips in one batch; expected a lower bs \(MemoryError: no room\)'): m.predict_files(files, errors=errors, progress=False)
    assert m.model.seen==[6]  # and not again one by one
    with pytest.raises(RuntimeError, match='^bs: memory'): m.predict_long(clips[1], hop=.1)
    import specnorm_fastai.cli as cli
    monkeypatch.setattr(share, 'load_spec_model', lambda p: m)
    for more in ([],['--hop','.1']): assert cli.predict(['model', *map(str, files), *more, *(['--skip-errors'] if errors=='skip' else [])])==1
    assert len(m.predict_files(files, bs=2, progress=False))==6

def test_parts_that_do_not_fit_are_refused(model):
    f,m = model.frontend,model.model
    for kw,what in ((dict(vocab=['a']),None), (dict(vocab=['a','a']),'more than once'), (dict(vocab='ab'),'expected labels'), (dict(vocab=[b'a']),'strings or numbers'), (dict(task='x'),'task'), (dict(threshold=2),'threshold'), (dict(precision='int8'),'precision'), (dict(channels=0),'channels'), (dict(resize=3),'resize')):
        if what is None:
            with pytest.raises(ValueError, match='expected 1 outputs'): SpecModel(f, m, **kw).predict(np.random.rand(16000), 16000)
        else:
            with pytest.raises((ValueError,TypeError), match=what): SpecModel(f, m, **{'vocab':['a','b'], **kw})

def test_the_learner_is_left_alone_and_the_model_stays_in_eval(learn, clips):
    before = {k:v.clone() for k,v in learn.model.state_dict().items()}
    m = SpecModel.from_learner(learn); m.train(); m.predict(clips[0])
    assert not m.training and not m.model.training and all(p.requires_grad for p in learn.model.parameters())
    assert all(torch.equal(v, before[k]) for k,v in learn.model.state_dict().items())

# ---- folders

def test_no_pickle_and_the_right_files(folder):
    assert sorted(f.name for f in folder.iterdir())==['README.md','model.safetensors','preprocess.json','stats.safetensors']
    assert not any(f.read_bytes()[:2] in (b'PK',b'\x80\x04',b'\x80\x02') for f in folder.iterdir())

def test_networks_without_a_name_need_model(few, clips, tmp_path):
    class Own(nn.Module):
        def __init__(self): super().__init__(); self.body,self.head = nn.Conv2d(1, 4, 3),nn.Linear(4, 8)
        def forward(self, x): return self.head(self.body(x).mean((-2,-1)))
    learn = made(few, arch=Own()); folder = save_spec_model(learn, tmp_path/'m'); want = SpecModel.from_learner(learn).predict(clips[0]).probabilities
    with pytest.raises(ValueError, match=r'preprocess.json: network: the folder does not name it \(Own\)'): load_spec_model(folder)
    net = Own(); w = net.head.weight.clone()
    assert torch.equal(load_spec_model(folder, model=net).predict(clips[0]).probabilities, want) and torch.equal(net.head.weight, w)
    with pytest.raises(ValueError, match=r'model.safetensors: its weights do not fit model, the Sequential(.|\n)*missing: 0.0.weight'): load_spec_model(folder, model=small_cnn(8))
    with pytest.raises(TypeError, match='model: expected an nn.Module'): load_spec_model(folder, model='small')
    changed = made(few); changed.model[-2] = nn.Identity()
    with pytest.warns(UserWarning, match='changed afterwards'): save_spec_model(changed, tmp_path/'c')
    with pytest.raises(ValueError, match='as model='): load_spec_model(tmp_path/'c')
    with pytest.raises(ValueError, match='is a module of its own'): _foreign(net).save(tmp_path/'x')
    assert not (tmp_path/'x').exists()

class Frames(nn.Module):
    def forward(self, x): return x[...,:3136].reshape(*x.shape[:2], 56, 56)
def _foreign(net): return SpecModel(SpecFrontend(AudioToSpec(Frames()), 16000), net, list('abcdefgh'))

def test_timm_networks_come_by_name(few, clips, tmp_path):
    pytest.importorskip('timm')
    learn = made(few, arch='resnet10t'); folder = save_spec_model(learn, tmp_path/'m')
    close(load_spec_model(folder).predict(clips[0]).probabilities, answers(learn, clips[:1])[0], 1e-4)
    assert json.loads((folder/'preprocess.json').read_text())['network']['name']=='resnet10t' and '`timm`' in (folder/'README.md').read_text()

def edited(folder, to, change=None, sign=True, **files):
    "A copy with a changed preprocess.json, signed as if it were whole"
    shutil.copytree(folder, to)
    fn = to/'preprocess.json'; d = json.loads(fn.read_text())
    if change: change(d)
    for n,f in files.items(): n = n.replace('_','.'); f(to/n); d['files'][n] = share._sha(to/n)
    if sign: d['sha256'] = share._own_sha(d)
    fn.write_text(json.dumps(d))
    return to

def _set(*path):
    *path,v = path
    def f(d):
        for k in path[:-1]: d = d[k]
        d[path[-1]] = v
    return f

@pytest.mark.parametrize('change,what', [(_set('crops',10**9),'version: expected 2'), (_set('version',2),'a newer specnorm_fastai wrote it'), (_set('version','1'),'version: expected 1'), (_set('format','x'),'format: expected'), (_set('network','name','hf-hub:me/evil'),'expected a plain name'),
    (_set('network','name','smal'),"no network 'smal'"), (_set('network','kwargs',{'checkpoint_path':'x.pth'}),'checkpoint_path.*not taken from a file'), (_set('network',['small']),'network: expected name'), (_set('network','kwargs',{'width':5}),'weights do not fit'),
    (_set('frontend','kind','eval'),'kind: expected'), (_set('frontend','settings','window_fn',{'window':'os.system'}),'a window'), (_set('frontend','then',[{'name':'Evil'}]),"a transform 'Evil'"), (_set('frontend','waveform_norm',{'name':'Evil'}),'waveform_norm'),
    (_set('frontend','settings','n_mels',21),'do not fit a spectrogram|belong to another pipeline'), (_set('frontend','settings','hop_length',80),'belong to another pipeline(.|\n)*hop_length: 160'), (_set('frontend','sr',8000),'belong to another pipeline'),
    (_set('fingerprint','n_mels',3),'another one in this version(.|\n)*n_mels'), (_set('labels',['a']),'expected 1 outputs'), (_set('labels',None),'preprocess.json'), (_set('files',{'../x':'0'}),'files: expected'), (_set('files',{}),'files: expected the digest of model.safetensors'), (_set('frontend','mean','data',[1.]),'preprocess.json'), (_set('frontend',{}),'preprocess.json: KeyError')], ids=lambda o: 'changed' if callable(o) else None)
def test_folders_that_cannot_be_are_named(folder, tmp_path, change, what):
    with pytest.raises(ValueError, match=what) as e: load_spec_model(edited(folder, tmp_path/'m', change))
    assert str(tmp_path/'m') in str(e.value)

def test_damage_is_named(folder, tmp_path):
    for i,(n,what,f) in enumerate([('model.safetensors','changed, cut or exchanged', lambda b: b[:-4]), ('model.safetensors','changed, cut', lambda b: b[:-1]+bytes([b[-1]^1])), ('stats.safetensors','changed, cut', lambda b: b[:99]), ('preprocess.json','is no JSON', lambda b: b[:500]),
            ('preprocess.json','digest does not fit', lambda b: b.replace(b'"soxr"', b'"polyphase"', 1)), ('preprocess.json','no JSON', lambda b: b''), ('preprocess.json','format: expected', lambda b: b'[1]'), ('preprocess.json','no JSON', lambda b: b'\xff\xfe')]):
        d = Path(shutil.copytree(folder, tmp_path/str(i))); (d/n).write_bytes(f((d/n).read_bytes()))
        with pytest.raises(ValueError, match=what) as e: load_spec_model(d)
        assert str(d/n) in str(e.value)
    for n,what in (('model.safetensors','promises model.safetensors'), ('preprocess.json','no preprocess.json'), ('stats.safetensors','promises stats.safetensors')):
        d = Path(shutil.copytree(folder, tmp_path/f'without_{n}')); (d/n).unlink()
        with pytest.raises(FileNotFoundError, match=what): load_spec_model(d)
    def cut(f): f.write_bytes(f.read_bytes()[:-40])
    with pytest.raises(ValueError, match='cannot read .*model.safetensors as weights'): load_spec_model(edited(folder, tmp_path/'cut', model_safetensors=cut))
    for p,e in ((tmp_path/'nowhere',FileNotFoundError), (folder/'README.md',NotADirectoryError)):
        with pytest.raises(e): load_spec_model(p)

def test_statistics_of_another_pipeline_are_refused(few, folder, tmp_path):
    other = SpecModel.from_learner(made(few, batch_tfms=[AudioNormalize(), mel(hop_length=200), SpecNormalize(axes='frequency')]))
    with pytest.raises(ValueError, match='belong to another pipeline(.|\n)*hop_length: 200'): load_spec_model(edited(folder, tmp_path/'m', stats_safetensors=other.stats.save))

def test_statistics_that_the_front_end_does_not_normalize_by_are_refused(few, learn, model, folder, tmp_path):
    other = SpecModel.from_learner(made(few[:30]))
    both = r'stats: the front end normalizes by mean .* std .*, these statistics have mean .* std'
    with pytest.raises(ValueError, match=f'preprocess.json: {both}') as e: load_spec_model(edited(folder, tmp_path/'m', stats_safetensors=other.stats.save))
    assert all(share.span(v) in str(e.value) for v in (model.frontend.mean,model.frontend.std,other.stats.mean,other.stats.std))
    for k in ('mean','std'):
        with pytest.raises(ValueError, match=both): load_spec_model(edited(folder, tmp_path/k, lambda d: d['frontend'][k]['data'].__setitem__(3, 4.)))
    with pytest.raises(ValueError, match=both): SpecModel(model.frontend, model.model, model.vocab, stats=other.stats)
    assert SpecModel(model.frontend, model.model, model.vocab, stats=model.stats).stats is model.stats
    behind = SpecModel.from_learner(made(few, batch_tfms=[mel(), SpecNormalize(), FillFrames(0.)]))  # where it does not stand last
    assert behind.frontend.mean is None
    with pytest.raises(ValueError, match=both): SpecModel(behind.frontend, behind.model, behind.vocab, stats=other.stats)

def test_statistics_used_unchecked_stay_so(few, clips, tmp_path):
    stats = SpecModel.from_learner(made(few)).stats
    learn = made(few, batch_tfms=[AudioNormalize(), mel(hop_length=200), SpecNormalize.from_stats(stats, axes='frequency', unchecked=True)])
    again = load_spec_model(save_spec_model(learn, tmp_path/'m')); assert again.unchecked and again.stats is not None
    close(again.predict(clips[0]).probabilities, answers(learn, clips[:1])[0], 1e-4)

STEPS = ('mkdir','chmod','rename','replace','link','unlink','rmdir','open')

def _killed_at(step, save):
    "A process that ends, as by kill -9, before its `step`-th change of a disk; True where it got that far"
    if pid:=os.fork(): return os.waitpid(pid, 0)[1]!=0
    done = 0
    def count(f):
        def g(*args, **kwargs):
            nonlocal done
            done += 1
            if done==step: os._exit(9)
            return f(*args, **kwargs)
        return g
    for n in STEPS: setattr(os, n, count(getattr(os, n)))
    try: save(); os._exit(0)
    except BaseException: os._exit(5)

@pytest.fixture(scope='module')
def two(few, model, clips):
    "Two models that answer otherwise, the second one without statistics, and what tells which one a folder holds"
    new = SpecModel.from_learner(made(few, batch_tfms=[mel(), SpecNormalize(3., 9.)]))
    sound = [m.predict(clips[0]).probabilities for m in (model,new)]
    assert new.stats is None and not torch.equal(*sound)
    def which(d): p = load_spec_model(d).predict(clips[0]).probabilities; return [torch.equal(p, s) for s in sound].index(True)
    return model,new,which

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
@pytest.mark.parametrize('old', [0,1])
def test_a_save_that_is_killed_leaves_the_old_model_or_the_new_one(two, tmp_path, old):
    "At every change of the disk; the next save tidies up, and other files are left alone"
    *models,which = two
    seen,step,to = [],0,tmp_path/'m'
    while step<200:
        step += 1
        models[old].save(to); (to/'notes.txt').write_text('mine'); (to/'.git').mkdir(exist_ok=True)
        if not _killed_at(step, lambda: models[1-old].save(to)): break
        with warnings.catch_warnings(): warnings.simplefilter('error'); seen.append(which(to))
        assert (to/'notes.txt').read_text()=='mine'
    assert step>20 and which(to)==1-old and seen==sorted(seen, reverse=bool(old)) and set(seen)=={0,1}  # once it is the new one, it stays
    models[old].save(to)
    assert which(to)==old and sorted(f.name for f in to.iterdir())==sorted(['.git','notes.txt','README.md','model.safetensors','preprocess.json',*['stats.safetensors'][:1-old]])
    assert [f.name for f in tmp_path.iterdir()]==['m']

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_who_loads_while_it_is_saved_over_gets_the_old_model_or_the_new_one(two, tmp_path):
    *models,which = two
    to = models[0].save(tmp_path/'m')
    if not (pid:=os.fork()):
        try:
            for k in range(40): models[k%2].save(to)
            os._exit(0)
        except BaseException: os._exit(1)
    seen = []
    while not (end:=os.waitpid(pid, os.WNOHANG))[0]: seen.append(which(to))
    assert end[1]==0 and {0,1}==set(seen)

def test_a_disk_without_links_is_saved_to(two, tmp_path, monkeypatch):
    *models,which = two
    to = models[0].save(tmp_path/'m')
    with monkeypatch.context() as m:
        m.setattr(os, 'link', lambda *a: (_ for _ in ()).throw(OSError('no links')))
        models[1].save(to)
    assert which(to)==1 and sorted(f.name for f in to.iterdir())==['README.md','model.safetensors','preprocess.json']

def test_a_save_that_fails_leaves_what_was_there(two, tmp_path, monkeypatch):
    *models,which = two
    to = models[0].save(tmp_path/'m')
    with monkeypatch.context() as m:
        m.setattr(share, 'model_card', lambda *a: 1/0)
        for d in (tmp_path/'fresh',to):
            with pytest.raises(ZeroDivisionError): models[1].save(d)
    assert which(to)==0 and [f.name for f in tmp_path.iterdir()]==['m'] and not list(to.glob('.*'))

def test_a_link_in_a_folder_leads_no_save_elsewhere(two, tmp_path):
    *models,which = two
    other,to = models[1].save(tmp_path/'other'),models[0].save(tmp_path/'m')
    for n in ('.specnorm-next','.specnorm-next.abcd_123'): (to/n).symlink_to(other)
    with pytest.warns(UserWarning, match='specnorm-next was left out(.|\n)*it is no folder'): assert which(to)==0
    assert which(models[0].save(to))==0 and which(other)==1 and not list(to.glob('.*'))

def _begun(to, new, old=None):
    "A folder that is being saved over: the new model is committed"
    n = new.save(to/'.specnorm-next')
    (n/'follows').write_text(share._digest_of(to) if old is None else old)
    return n

def _shorter(f): f.write_bytes(f.read_bytes()[:-9])
def _other_byte(f): f.write_bytes((b:=f.read_bytes())[:-1]+bytes([b[-1]^1]))
def _link(f): os.rename(f, f.parent.parent.parent/f.name); f.symlink_to(f.parent.parent.parent/f.name)
@pytest.mark.parametrize('spoil,why', [(lambda n: (n/'model.safetensors').unlink(),'No such file'), (lambda n: _shorter(n/'model.safetensors'),'model.safetensors was changed or cut'), (lambda n: _other_byte(n/'model.safetensors'),'model.safetensors was changed'),
    (lambda n: _shorter(n/'preprocess.json'),''), (lambda n: (n/'preprocess.json').write_text('{}'),'damaged'), (lambda n: _link(n/'model.safetensors'),'no plain file'), (lambda n: _link(n/'README.md'),'no plain file'), (lambda n: (n/'more').mkdir(),'more in it does not belong'),
    (lambda n: (n/'follows').write_text('0'*64),'not made to follow'), (lambda n: (n/'follows').unlink(),'No such file')])
def test_a_successor_that_is_damaged_or_planted_costs_nothing(two, tmp_path, monkeypatch, spoil, why):
    *models,which = two
    to = models[0].save(tmp_path/'m')
    spoil(_begun(to, models[1]))
    with pytest.warns(UserWarning, match=f'specnorm-next was left out(.|\n)*{why}'): assert which(to)==0
    with monkeypatch.context() as m:  # a save that fails leaves the good one
        m.setattr(share, 'model_card', lambda *a: 1/0)
        with pytest.raises(ZeroDivisionError): models[1].save(to)
        with pytest.warns(UserWarning): assert which(to)==0
    assert which(models[1].save(to))==1 and not list(to.glob('.*'))

def test_a_damaged_model_says_what_lies_beside_it(two, tmp_path):
    *models,which = two
    to = models[0].save(tmp_path/'m'); _begun(to, models[1], '0'*64); _shorter(to/'model.safetensors')
    with pytest.raises(ValueError, match='changed, cut or exchanged(.|\n)*specnorm-next was left out(.|\n)*not made to follow'): load_spec_model(to)

def test_loading_ends_a_save_that_was_killed(two, tmp_path, monkeypatch):
    *models,which = two
    to = models[0].save(tmp_path/'m'); _begun(to, models[1])
    def closed(*a): raise PermissionError(13, 'Permission denied')
    with monkeypatch.context() as m:
        m.setattr(share, '_settle', closed)
        with pytest.warns(UserWarning, match='was interrupted(.|\n)*until the folder is loaded by somebody who may write there .Permission denied'): assert which(to)==1
    import fcntl
    fd = os.open(to, os.O_RDONLY); fcntl.flock(fd, fcntl.LOCK_EX)
    with warnings.catch_warnings(): warnings.simplefilter('error'); assert which(to)==1 and (to/'.specnorm-next').is_dir()  # another process is at it
    os.close(fd)
    with warnings.catch_warnings(): warnings.simplefilter('error'); assert which(to)==1
    assert not list(to.glob('.*')) and which(to)==1 and not (to/'stats.safetensors').exists()

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
@pytest.mark.parametrize('moved', [(),('README.md',),('model.safetensors','stats.safetensors'),('model.safetensors','stats.safetensors','preprocess.json')], ids=str)
def test_a_save_that_follows_a_killed_one_may_be_killed_too(two, tmp_path, moved):
    "From a folder in which some files of the killed save were in their places"
    *models,which = two
    seen,step = set(),0
    while step<200:
        step += 1
        to = models[0].save(tmp_path/f'm{step}'); n = _begun(to, models[1])
        for f in moved: shutil.copy(n/f, to/f) if (n/f).exists() else (to/f).unlink()
        if not _killed_at(step, lambda: models[0].save(to)): break
        with warnings.catch_warnings(): warnings.simplefilter('error'); seen.add(which(to))
    assert step>20 and seen=={0,1} and which(to)==0 and not list(to.glob('.*'))

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_a_first_save_into_a_clone_that_is_killed_can_be_made_again(two, tmp_path):
    *models,which = two
    step = 0
    while step<200:
        step += 1; to = tmp_path/f'm{step}'; (to/'.git').mkdir(parents=True); (to/'.gitattributes').touch()
        if not _killed_at(step, lambda: models[0].save(to)): break
        assert which(models[1].save(to))==1 and sorted(o.name for o in to.iterdir())==['.git','.gitattributes','README.md','model.safetensors','preprocess.json']
    assert step>20

HUB = '---\nlicense: mit\nlibrary_name: specnorm_fastai\n---\n'
@pytest.mark.parametrize('files,why', [(dict(model_safetensors='x', config_json='{}'),'config.json'), (dict(model_safetensors='x', preprocess_json='{"do_normalize": true}'),'its preprocess.json is not that'), (dict(preprocess_json='no JSON'),'its preprocess.json'), (dict(_git='', README_md='# My project'),'its README.md is not'),
    (dict(_git='', README_md='---\nlibrary_name: transformers\n---\n'),'its README.md'), (dict(_git='', README_md='---\nlicense: mit\n---\nlibrary_name: specnorm_fastai\n'),'its README.md'), (dict(_git='', model_safetensors='x'),'its model.safetensors is of another'), (dict(_git='', stats_safetensors='x'),'its stats.safetensors'),
    (dict(_git='', pytorch_model_bin='x'),'its pytorch.model.bin'), (dict(_git='', _gitattributes=''),None), (dict(_git='', _gitattributes='', README_md=HUB),None)], ids=str)
def test_only_folders_of_ours_are_saved_over(model, tmp_path, files, why):
    to = tmp_path/'m'; to.mkdir()
    files = {k.replace('_', '.'):v for k,v in files.items()}
    for n,t in files.items(): (to/n).write_text(t)
    if why is None: assert load_spec_model(model.save(to)).vocab==model.vocab; return
    with pytest.raises(FileExistsError, match=f'holds other things than a SpecModel: .*{why}') as e: model.save(to)
    assert str(to) in str(e.value) and {o.name:o.read_text() for o in to.iterdir()}==files

def test_a_folder_of_other_things_that_comes_up_meanwhile_is_left_alone(model, tmp_path, monkeypatch):
    to,real = tmp_path/'m',share._write_folder
    def slow(d, *args): real(d, *args); to.mkdir(exist_ok=True); (to/'photo.jpg').touch()
    monkeypatch.setattr(share, '_write_folder', slow)
    with pytest.raises(FileExistsError, match='beside photo.jpg'): model.save(to)
    assert [o.name for o in to.iterdir()]==['photo.jpg'] and [o.name for o in tmp_path.iterdir()]==['m']

@pytest.mark.parametrize('n', share._files)
def test_a_folder_in_the_place_of_a_file_is_refused_before_anything_is_written(model, tmp_path, n):
    to = model.save(tmp_path/'m'); (to/n).unlink(); (to/n).mkdir(); (to/n/'mine').touch()
    before = {o.name:o.stat().st_ino for o in to.iterdir()}
    with pytest.raises(FileExistsError, match=f'its {n} is a folder'): model.save(to)
    assert {o.name:o.stat().st_ino for o in to.iterdir()}==before

def test_a_save_removes_what_is_its_own_and_nothing_of_its_neighbours(two, tmp_path):
    *models,which = two
    to = models[0].save(tmp_path/'m')
    others = ['.specnorm-abcd_123','.specnorm-next-abcd_123','.specnorm-sub-abcd_123','.specnorm-next.abc-abcd_123']
    for n in (*others,'.specnorm-next.abcd_123'): (to/n).mkdir(); (to/n/'f').touch()
    assert which(models[1].save(to))==1 and sorted(o.name for o in to.glob('.*'))==sorted(others)

def test_leftovers_that_cannot_be_taken_away_matter_only_where_they_are_in_the_way(two, tmp_path, monkeypatch):
    *models,which = two
    to = models[0].save(tmp_path/'m'); (to/'.specnorm-next.abcd_123').mkdir(); real = share._remove
    def closed(p):
        if p.name=='.specnorm-next.abcd_123' or (p/'theirs').exists(): raise PermissionError(13, 'Permission denied', str(p))
        real(p)
    monkeypatch.setattr(share, '_remove', closed)
    assert which(models[1].save(to))==1
    (to/'.specnorm-next').mkdir(); (to/'.specnorm-next/theirs').touch()
    with pytest.raises(OSError, match=f'cannot save in {to}: what an earlier save left there, .specnorm-next, is in the way(.|\n)*Permission denied'): models[0].save(to)
    assert which(to)==1

def test_a_save_that_waits_for_another_says_so_and_gives_up(two, tmp_path, monkeypatch):
    fcntl = pytest.importorskip('fcntl')
    *models,which = two
    to = models[0].save(tmp_path/'m')
    monkeypatch.setattr(share, '_tell_after', .1); monkeypatch.setattr(share, '_patience', .4)
    fd = os.open(to, os.O_RDONLY); fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.warns(UserWarning, match=f'waiting for another process, which saves a model in {to}') as w:
        with pytest.raises(TimeoutError, match=f'another process saves a model in {to}, and had not ended after 0.4 s'): models[1].save(to)
    assert len(w)==1 and which(to)==0 and not list(to.glob('.*'))
    os.close(fd); assert which(models[1].save(to))==1

def test_a_disk_without_locks_is_saved_to(two, tmp_path, monkeypatch):
    fcntl = pytest.importorskip('fcntl')
    *models,which = two
    to = models[0].save(tmp_path/'m')
    def none(*a): raise OSError(9, 'Bad file descriptor')
    monkeypatch.setattr(fcntl, 'flock', none)
    assert which(models[1].save(to))==1

@pytest.mark.parametrize('links', [True,False])
def test_files_keep_the_modes_that_they_had(two, tmp_path, monkeypatch, links):
    *models,which = two
    to = models[1].save(tmp_path/'m')
    modes = {'README.md':0o664,'model.safetensors':0o600,'preprocess.json':0o640}
    for n,v in modes.items(): (to/n).chmod(v)
    def no(*a): raise OSError('no links')
    if not links: monkeypatch.setattr(os, 'link', no)
    models[0].save(to)
    umask = os.umask(0); os.umask(umask)
    assert {o.name:o.stat().st_mode&0o777 for o in to.iterdir()}=={**modes, 'stats.safetensors':0o666&~umask}

def test_what_a_first_save_left_behind_is_named(model, tmp_path):
    d = model.save(tmp_path/'m')
    os.rename(d, tmp_path/'.specnorm-m-2-abcd_123')
    for n in ('n','m'):
        with pytest.raises(FileNotFoundError, match='no such folder: [^;]*$'): load_spec_model(tmp_path/n)
    with pytest.raises(FileNotFoundError, match='no such folder(.|\n)*a save was interrupted(.|\n)*specnorm-m-2-abcd_123'): load_spec_model(tmp_path/'m-2')
    os.rename(tmp_path/'.specnorm-m-2-abcd_123', tmp_path/'.specnorm-m[1]-abcd_123')
    with pytest.raises(FileNotFoundError, match='a save was interrupted'): load_spec_model(tmp_path/'m[1]')
    with pytest.raises(FileNotFoundError, match='no such folder: [^;]*$'): load_spec_model(tmp_path/'m1')

def test_save_refuses_other_places(model, tmp_path):
    (tmp_path/'d').mkdir(); (tmp_path/'d/photo.jpg').touch(); (tmp_path/'f').touch()
    for p,e,what in ((tmp_path/'no/m',FileNotFoundError,'no such folder'), (tmp_path/'d',FileExistsError,'holds other things'), (tmp_path/'f',NotADirectoryError,'got the file')):
        with pytest.raises(e, match=what): model.save(p)
    (tmp_path/'empty').mkdir(); assert load_spec_model(model.save(tmp_path/'empty')).vocab==model.vocab

def test_the_card_is_markdown_with_a_yaml_head(few, model, tmp_path):
    res = pd.DataFrame(dict(accuracy=[91.25,88.], std=[1.,2.]), index=pd.Index(['global|x','none'], name='way'))
    text = model_card(model, dict(title='Sounds', license='mit', tags=['birds','fastai'], language=['en'], limits='Noise: "loud" # odd'), res)
    head = yaml.safe_load(text.split('---')[1])
    assert head['library_name']=='specnorm_fastai' and head['license']=='mit' and head['tags'].count('fastai')==1 and 'birds' in head['tags'] and head['pipeline_tag']=='audio-classification'
    assert '| global\\|x | 91.25 | 1 |' in text and 'Noise: "loud" # odd' in text and all(l in text for l in model.vocab) and '16000 Hz' in text and 'SpecStats' in text and '0.6 s' in text
    learn = made(few)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    text = (save_spec_model(learn, tmp_path/'m')/'README.md').read_text(); assert '| train_loss | valid_loss | accuracy |' in text
    for card in (dict(limits='Noise only.'), {}): assert 'were not calibrated' in model_card(model, card).split('## Limits')[1]  # whatever else its authors say
    for bad in (dict(titel='x'), dict(title={1}), 3):
        with pytest.raises((ValueError,TypeError), match='card'): model.save(tmp_path/'x', card=bad)
    with pytest.raises(TypeError, match='results: expected a table'): model.save(tmp_path/'x', results=[1])
    assert not (tmp_path/'x').exists()

def test_the_card_says_on_what_its_results_were_measured(few, model, tmp_path):
    res = dict(accuracy=.9)
    section = lambda text: text.split('## Results')[1].split('##')[0]
    assert 'On what data these were measured is not recorded here.' in section(model_card(model, results=res))
    assert 'Measured on ESC-50, fold 1.' in section(model_card(model, results=res, measured_on='ESC-50, fold 1'))
    learn = made(few)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    card = lambda **kw: (save_spec_model(learn, tmp_path/'m', **kw)/'README.md').read_text()
    assert f'the {len(learn.dls.valid_ds)} clips of its validation split, after the last epoch' in section(card())
    with learn.no_bar(): loss,acc = learn.validate()
    assert section(card()).split()[:4]==['|','valid_loss','|','accuracy'] and f'{loss:.4g} | {acc:.4g}' in section(card()) and f'Measured on the {len(learn.dls.valid_ds)} clips of its validation split.' in section(card())
    with learn.no_bar(): learn.validate(dl=learn.dls.train)
    assert '## Results' not in card()  # of another set than the validation split
    assert 'Measured on my own clips.' in section(card(results=res, measured_on='my own clips')) and 'not recorded' in section(card(results=res))
    assert 'Measured on fold 2.' in section((save_spec_model(model, tmp_path/'m', results=res, measured_on='fold 2')/'README.md').read_text())
    with pytest.raises(ValueError, match='measured_on: expected results'): model.save(tmp_path/'x', measured_on='fold 2')
    with pytest.raises(TypeError, match='measured_on: expected a string'): model_card(model, results=res, measured_on=2)
    assert not (tmp_path/'x').exists()

def test_the_card_of_a_model_without_a_length_says_that_validation_heard_padding(few, model):
    limits = lambda m: model_card(m).split('## Limits')[1]
    assert 'padded to the longest of their batch' in limits(SpecModel.from_learner(made(few, block=AudioBlock()))) and 'padded' not in limits(model)

@pytest.mark.parametrize('card,what', [(dict(tags='birds'), r"card\['tags'\]: expected a list of strings, got 'birds'"), (dict(tags=[1]), r"card\['tags'\]: expected a list of strings, got \[1\]"), (dict(metrics='accuracy'), r"card\['metrics'\]: expected a list"),
    (dict(title=3), r"card\['title'\]: expected a string, got 3"), (dict(limits=['a']), r"card\['limits'\]: expected a string"), (dict(language=[None]), r"card\['language'\]: expected a string or a list of strings"), (dict(inference='no'), r"card\['inference'\]: expected True, False or a dict")], ids=str)
def test_fields_of_a_card_are_checked(model, tmp_path, card, what):
    with pytest.raises(ValueError, match=what): model_card(model, card)
    with pytest.raises(ValueError, match=what): model.save(tmp_path/'x', card=card)
    assert not (tmp_path/'x').exists()

def test_every_field_of_a_card_has_a_kind():
    kinds = [k for keys,_ in share._card_kinds.values() for k in keys]
    assert sorted(kinds)==sorted(share._card_keys)

@pytest.mark.parametrize('v', ['no','1.0','---','a: b # c','"quoted"','Vögel 鳥','a\n---\nb',' ','- x','\u2028'])
def test_the_cards_head_is_read_as_it_was_given(model, v):
    text = model_card(model, dict(license=v, language=[v,'en'], tags=(v,), inference=False))
    assert text.startswith('---\n')
    head = yaml.safe_load(text[4:text.index('\n---\n', 4)])
    assert head['license']==v and head['language']==[v,'en'] and head['tags'][-1]==v and head['inference'] is False

# ---- many files

def test_no_answer_depends_on_its_neighbours(few, model, clips):
    free = SpecModel.from_learner(made(few, block=AudioBlock()))
    for m in (model,free):
        want = torch.stack([m.predict(f).probabilities for f in clips])
        for bs in (1,2,32):
            for files in (clips,clips[::-1]):
                t = m.predict_files(files, bs=bs, probs=True, progress=False)
                assert t.path.tolist()==[*map(str, files)]; close(t.filter(like='p_').to_numpy(np.float32), want if files is clips else want.flip(0), 1e-6)

def test_folders_doubles_and_progress(model, clips):
    seen = []
    t = model.predict_files([clips[0].parent, clips[0]], progress=lambda i,n: seen.append((i,n)))
    assert len(t)==7 and t.label.iloc[-1]==model.predict(clips[0]).label and seen==[(i+1,7) for i in range(7)]
    assert list(t)==['path','label','probability','silent'] and t.silent.dtype==bool and model.predict_files(str(clips[0])).shape==(1,4)

def test_files_that_cannot_be_used_are_all_named(model, clips, tmp_path):
    (tmp_path/'a.wav').write_text('x'); (tmp_path/'b.wav').touch(); sf.write(tmp_path/'c.wav', np.zeros(50), 16000); sf.write(tmp_path/'d.wav', np.full(9000, np.nan), 16000, subtype='FLOAT')
    b = clips[0].read_bytes(); (tmp_path/'e.wav').write_bytes(b[:len(b)//2])
    bad = [*sorted(tmp_path.iterdir()), tmp_path/'nowhere.wav']
    with pytest.raises(ValueError, match='files: 4 of 7 cannot be used') as e: model.predict_files([clips[0],*bad])  # by their headers
    assert all(f.name in str(e.value) for f in (bad[0],bad[1],bad[4],bad[5]))
    with pytest.raises(ValueError, match='files: 2 of 3 cannot be used') as e: model.predict_files([bad[2],clips[0],bad[3]])  # by what is in them
    assert 'c.wav is too short' in str(e.value) and 'd.wav' in str(e.value)
    t = model.predict_files([*bad,clips[0]], errors='skip')
    assert t.error.notna().tolist()==[True]*6+[False] and t.probability.isna().tolist()==[True]*6+[False] and t.label.iloc[-1]==model.predict(clips[0]).label
    assert model.predict_files(bad, errors='skip', probs=True).error.notna().all()
    for files,kw,what in (([],{},'expected at least one'), ([3],{},'expected paths'), (tmp_path.parent/'nope',{},'nope'), (clips,dict(bs=0),'bs: expected'), (clips,dict(errors='no'),'errors: expected')):
        with pytest.raises((ValueError,TypeError,FileNotFoundError), match=what): model.predict_files(files, **kw)
    (tmp_path/'void').mkdir()
    with pytest.raises(ValueError, match='no audio files in .*void'): model.predict_files(tmp_path/'void')

# ---- long recordings

@pytest.fixture(scope='module')
def recording(few): return np.concatenate([sf.read(f, dtype='float32')[0] for f in few.path[:9]])

def brute(model, x, n, h):
    "Windows and the mean over those that hold a slice's middle, by the definition"
    at = list(range(0, len(x)-n+1, h))
    if at[-1]+n<len(x): at.append(len(x)-n)
    p = [model.predict(x[a:a+n], model.sr).probabilities for a in at]
    mid = [(k*h+min((k+1)*h, len(x)))/2 for k in range(-(-len(x)//h))]
    return torch.stack([torch.stack([q for a,q in zip(at, p) if a<=m<a+n]).mean(0) for m in mid])

@pytest.mark.parametrize('hop', [.6,.3,.25,.1,.599])
@pytest.mark.parametrize('cut', [0,1,3000])
def test_slices_are_means_of_the_windows_that_hold_their_middle(model, recording, hop, cut, monkeypatch):
    monkeypatch.setattr(share, '_piece', 5000)
    x = recording[:len(recording)//9600*9600-cut][:57600]
    r = model.predict_long(x, 16000, hop=hop, bs=5)
    close(r.probabilities, brute(model, x, 9600, round(hop*16000)), 1e-6)
    t = r.table(probs=True)
    assert t.start[0]==0 and np.allclose(t.end[:-1], t.start[1:]) and np.isclose(t.end.iloc[-1], len(x)/16000) and len(t)==len(r) and np.allclose(t.filter(like='p_').sum(axis=1), 1, atol=1e-5)
    m = r.table(merge=True); assert ((m.label!=m.label.shift())|(m.silent!=m.silent.shift())).all() and np.isclose(m.end.iloc[-1], t.end.iloc[-1])

def test_windows_side_by_side_are_clips(model, recording):
    r = model.predict_long(recording[:5*9600], 16000, hop=.6)
    close(r.probabilities, torch.stack([model.predict(c, 16000).probabilities for c in recording[:5*9600].reshape(5,9600)]), 1e-6)
    assert torch.equal(r.probabilities, r.windows[1])
    assert r.windows[0].shape==(5,) and np.allclose(r.windows[0], np.arange(5)*.6, rtol=0, atol=1e-9)

def test_overlapping_windows_by_hand():
    "Windows of 4 samples at 0, 2 and 3 in 7; the middles of the slices are 1, 3, 5 and 6.5"
    p = np.array([[0.,1.],[.3,.7],[.9,.1]], np.float32)
    got = share._merge_windows(np.array([0,2,3]), p, 4, 2, 7)
    close(got, torch.tensor([[0,1],[.4,.6],[.6,.4],[.9,.1]], dtype=torch.float32), 1e-6)
    assert (got[[0,3]]==p[[0,2]]).all()  # where there is one window, its very bits

def test_a_polyphase_model_hears_long_recordings_by_soxr(model, clips, recording):
    poly = SpecModel(model.frontend, model.model, model.vocab, resample='polyphase')
    x = soxr.resample(recording[:30000], 16000, 44100)
    assert torch.equal(poly.predict_long(x, 44100, hop=.3).probabilities, model.predict_long(x, 44100, hop=.3).probabilities)
    assert not torch.equal(poly.predict(clips[1]).probabilities, model.predict(clips[1]).probabilities)  # while clips go by its own way
    r = poly.predict_long(recording[:2*9600], 16000, hop=.6)
    close(r.probabilities, torch.stack([poly.predict(c, 16000).probabilities for c in recording[:2*9600].reshape(2,9600)]), 1e-6)

@pytest.mark.parametrize('sr,ch,fmt,sub', [(16000,1,'wav','PCM_16'),(44100,2,'wav','FLOAT'),(8000,1,'flac','PCM_16'),(48000,3,'wav','PCM_24'),(22050,1,'ogg','VORBIS')])
def test_a_file_in_pieces_is_the_whole_array(model, recording, tmp_path, monkeypatch, sr, ch, fmt, sub):
    x = np.stack([np.roll(soxr.resample(recording, 16000, sr), 99*c) for c in range(ch)], 1)
    sf.write(tmp_path/f'x.{fmt}', x, sr, subtype=sub)
    whole = Resample(16000)(DownmixMono()(AudioTensor.create(tmp_path/f'x.{fmt}')))
    for piece in (2**18,3001):
        monkeypatch.setattr(share, '_piece', piece)
        r = model.predict_long(tmp_path/f'x.{fmt}', hop=.35)
        close(r.probabilities, model.predict_long(whole, hop=.35).probabilities, 1e-5)
        close(r.probabilities, model.predict_long(AudioTensor.create(tmp_path/f'x.{fmt}'), hop=.35).probabilities, 1e-5)
        assert abs(r.duration-len(x)/sr)<1e-3 and 'x.' in r.name

def test_short_recordings_and_other_lengths(few, model, clips):
    short = AudioTensor.create(clips[2]); r = model.predict_long(short, hop=.2)  # 0.4 s, clips have 0.6
    close(r.probabilities, model.predict(short).probabilities.expand(2,-1), 1e-6)
    free = SpecModel.from_learner(made(few, block=AudioBlock()))
    with pytest.raises(ValueError, match='window: this model takes clips of any length'): free.predict_long(clips[-1])
    r = free.predict_long(clips[-1], window=1., hop=1.); x = sf.read(clips[-1], dtype='float32')[0]
    close(r.probabilities, torch.stack([free.predict(x[:16000], 16000).probabilities, free.predict(x[16000:], 16000).probabilities]), 1e-6)
    for kw,what in ((dict(hop=0),'hop: expected seconds'), (dict(hop=.7),'hop: expected at most a window, 0.6 s, got 0.7; .*unheard'), (dict(hop=1e-9),'hop: expected at least a sample, 6.25e-05 s, got 1e-09$'), (dict(hop=True),'hop: expected'), (dict(window=1.),'window: expected None'), (dict(bs=0),'bs: expected'), (dict(sr=16000),'sr: expected None')):
        with pytest.raises(ValueError, match=what): model.predict_long(clips[-1], **kw)
    with pytest.raises(ValueError, match='is too short'): model.predict_long(np.zeros(100), 16000)
    with pytest.raises(ValueError, match=f'window: expected at least {free.frontend.least/16000:g} s, got 0.001$'): free.predict_long(clips[-1], window=.001)

def test_damage_in_the_middle_of_a_recording_is_named(model, tmp_path):
    x = np.zeros(600000, np.float32); x[500000] = np.nan; sf.write(tmp_path/'nan.wav', x, 16000, subtype='FLOAT')
    with pytest.raises(ValueError, match='NaN or Inf in .*nan.wav, the first at sample 500000'): model.predict_long(tmp_path/'nan.wav')
    sf.write(tmp_path/'cut.wav', np.random.default_rng(0).normal(size=90000)*.1, 16000); b = (tmp_path/'cut.wav').read_bytes(); (tmp_path/'cut.wav').write_bytes(b[:60000])
    with pytest.raises(ValueError, match='truncated audio file .*cut.wav'): model.predict_long(tmp_path/'cut.wav')

def test_memory_does_not_grow_with_the_recording(model, tmp_path, monkeypatch):
    "numpy's memory at its peak; what torch holds is a batch of windows. Read whole, the longer one takes 58 MB as float32 at 16 kHz"
    monkeypatch.setattr(SpecModel, '_probs', lambda self, clips: torch.full((len(clips),8), 1/8))  # the network is not what is measured
    peaks,r = [],np.random.default_rng(0)
    for minutes in (1,15):
        with sf.SoundFile(tmp_path/f'{minutes}.wav', 'w', 24000, 1, subtype='PCM_16') as f:
            for _ in range(minutes): f.write(r.normal(size=24000*60)*.1)
        tracemalloc.start(); res = model.predict_long(tmp_path/f'{minutes}.wav', hop=.6); peaks.append(tracemalloc.get_traced_memory()[1]); tracemalloc.stop()
        assert len(res)==minutes*100 and abs(res.duration-60*minutes)<1e-3
    assert peaks[1]<peaks[0]+2e6 and peaks[1]<25e6, peaks

def test_the_plot_has_both_axes(model, recording):
    top,ax = model.predict_long(recording, 16000).plot(k=3)
    assert len(ax.patches)==3 and ax.get_xlabel()=='time (s)' and len(top.collections)==1 and abs(ax.get_xlim()[1]-len(recording)/16000)<1e-6

# ---- ONNX

@pytest.mark.parametrize('name', ['frequency','as_is','any_length','zeros','xresnet18','bfloat16'])
def test_onnx_answers_as_pytorch(few, clips, tmp_path, name):
    "In probabilities; the spectra are of float64 in the file, and of float32 in PyTorch"
    ort = pytest.importorskip('onnxruntime'); pytest.importorskip('onnxscript')
    m = SpecModel.from_learner(made(few, **PIPES[name]()))
    s = ort.InferenceSession(m.to_onnx(tmp_path/'m.onnx'))
    meta = s.get_modelmeta().custom_metadata_map
    assert json.loads(meta['labels'])==m.vocab and meta['sample_rate']=='16000' and json.loads(meta['clip_samples'])==m.clip_samples
    assert s.get_inputs()[0].shape==['batch',1,m.clip_samples if name=='zeros' else 'time'] and s.get_outputs()[0].shape==['batch',8]
    m.precision = 'float32'
    for b,n in ((1,16000),(2,16000),(7,16000)) if name!='zeros' else ((1,11200),(5,11200)):
        x = (torch.rand(b,1,n, generator=torch.Generator().manual_seed(b))-.5)*.3
        with torch.inference_mode(): close(s.run(None, {'waveform':x.numpy()})[0], m(x), 1e-3)
    if name=='frequency':
        for n in (9600,7000,30000): x = torch.rand(3,1,n)-.5; close(s.run(None, {'waveform':x.numpy()})[0], m(x), 1e-3)

def test_onnx_without_its_packages_says_which(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    for o in (model,model.frontend):
        with pytest.raises(ImportError, match='to_onnx needs onnxscript: pip install onnx onnxscript'): o.to_onnx(tmp_path/'m.onnx')

def test_onnx_says_what_it_cannot(few, model, tmp_path, monkeypatch):
    pytest.importorskip('onnxruntime'); pytest.importorskip('onnxscript')
    with pytest.raises(ValueError, match='have no exported form'): SpecModel.from_learner(made(few, batch_tfms=[mel(), ItemNormalize()])).to_onnx(tmp_path/'m.onnx')
    with pytest.raises(FileNotFoundError, match='no such folder'): model.to_onnx(tmp_path/'no/m.onnx')
    monkeypatch.setattr(share, '_onnx_tol', -1.)
    with pytest.raises(RuntimeError, match='within -1.0 of PyTorch'): model.to_onnx(tmp_path/'m.onnx')
    assert not list(tmp_path.iterdir())

# ---- the command line

PREDICT = [sys.executable,'-c','import sys; from specnorm_fastai.cli import predict; sys.exit(predict())']
def run(*args, **kw): return subprocess.run([*PREDICT,*map(str,args)], capture_output=True, text=True, timeout=300, **kw)

def test_predict_as_a_process(folder, model, clips, tmp_path):
    from io import StringIO
    r = run(folder, clips[0].parent, '--probs')
    assert r.returncode==0 and re.fullmatch(r'specnorm-predict: 3 of 6 files are longer[^\n]*\n', r.stderr), r.stderr
    t = pd.read_csv(StringIO(r.stdout)); want = model.predict_files(clips[0].parent, probs=True)
    assert t.label.tolist()==want.label.tolist() and list(t)==list(want); close(t.drop(columns=['path','label']).to_numpy(float), want.drop(columns=['path','label']).to_numpy(float), 1e-5)

def test_predict_writes_files_and_hops(folder, model, clips, tmp_path, capsys):
    from specnorm_fastai.cli import predict
    assert predict([str(folder), str(clips[1]), '--out', str(tmp_path/'o.json')])==0
    (row,) = json.loads((tmp_path/'o.json').read_text()); assert row['label']==model.predict(clips[1]).label and abs(row['probability']-model.predict(clips[1]).probability)<1e-6
    assert predict([str(folder), *map(str, clips), '--hop', '.3', '--out', str(tmp_path/'o.csv')])==0
    t = pd.read_csv(tmp_path/'o.csv'); assert list(t)==['path','start','end','label','probability','silent'] and len(t)==sum(len(model.predict_long(f, hop=.3)) for f in clips)
    assert capsys.readouterr().out==''

@pytest.mark.parametrize('args,what', [(['--out','x.txt'],'--out: expected a name'), (['--out','no/such/x.csv'],'--out: no such folder'), (['--out','~nobody9/x.csv'],"--out: no such user's folder: '~nobody9/x.csv'"), (['--bs','0'],"--bs: expected a whole number above 0, got '0'"), (['--bs','1.5'],'--bs: expected'), (['--window','1'],'--window: expected together'), (['--hop','9'],'--hop: expected at most'),
    (['--hop','0'],'--hop: expected a number above 0'), (['--hop','nan'],'--hop: expected'), (['--hop','.3','--window','inf'],'--window: expected'), (['--hop','.3','--window','1'],'--window: expected None')])
def test_bad_arguments_of_predict_end_as_those_of_argparse(folder, clips, args, what, capsys):
    from specnorm_fastai.cli import predict
    with pytest.raises(SystemExit) as e: predict([str(folder), str(clips[0]), *args])
    o = capsys.readouterr(); assert e.value.code==2 and o.out=='' and f'specnorm-predict: error: argument {what}' in o.err and o.err.startswith('usage: specnorm-predict')

def test_predict_skips_on_request(folder, clips, tmp_path, capsys):
    from specnorm_fastai.cli import predict
    (tmp_path/'bad.wav').touch(); args = [str(folder), str(clips[0]), str(tmp_path/'bad.wav')]
    for more in ([],['--hop','.3']):
        assert predict([*args,*more,'--out',str(tmp_path/'o.csv')])==1 and 'bad.wav' in capsys.readouterr().err and not (tmp_path/'o.csv').exists()
        assert predict([*args,*more,'--skip-errors'])==3; assert '1 of 2 files could not be used' in (o:=capsys.readouterr()).err and 'bad.wav' in o.out
    assert predict([str(tmp_path/'nowhere'), str(clips[0])])==1 and 'no such folder' in capsys.readouterr().err
    with pytest.raises(SystemExit) as e: predict([str(folder)])
    assert e.value.code==2

def test_predict_help_is_light():
    code = "import sys\nfrom specnorm_fastai.cli import predict\ntry: predict(['--help'])\nexcept SystemExit: pass\nprint('HEAVY', [m for m in ('torch','fastai','librosa','numba','matplotlib','pandas') if m in sys.modules])"
    r = subprocess.run([sys.executable,'-c',code], capture_output=True, text=True); assert r.stdout.rstrip().endswith('HEAVY []') and '--hop' in r.stdout

# ---- the Hub's functions, and real sound

def test_huggingface_hub_saves_and_loads_a_learner_of_ours(learn, clips, tmp_path, monkeypatch):
    pytest.importorskip('toml', reason='huggingface_hub needs toml for fastai learners')
    hub = pytest.importorskip('huggingface_hub'); from huggingface_hub.fastai_utils import _save_pretrained_fastai
    monkeypatch.chdir(tmp_path); was = learn.path
    try: _save_pretrained_fastai(learn, 'sounds')
    finally: learn.path = was
    close(answers(hub.from_pretrained_fastai('sounds'), clips[:2]), answers(learn, clips[:2]), 1e-6)

@pytest.mark.parametrize('data', ['esc10','fsdd'])
def test_real_sound(request, data, tmp_path):
    df = audio_table(request.getfixturevalue(data)); df = df.iloc[np.linspace(0, len(df)-1, 30).astype(int)].reset_index(drop=True)
    df['category'] = [f'c{i%3}' for i in range(len(df))]; df['fold'] = [1+i%5 for i in range(len(df))]; df['path'] = df.path.astype(str)
    learn = made(df, block=AudioBlock(crop_signal_to=1500))
    model = load_spec_model(save_spec_model(learn, tmp_path/'m')); files = df.path[:10].tolist()
    close(model.predict_files(files, probs=True).filter(like='p_').to_numpy(np.float32), answers(learn, files), 1e-4)

# ---- what was saved before

OLD = sorted(p for p in (Path(__file__).parent/'old').iterdir() if p.is_dir())

@pytest.mark.parametrize('old', OLD, ids=lambda p: p.name)
def test_statistics_of_earlier_versions_load(old):
    want = json.loads((old/'expected.json').read_text())
    for suffix in ('safetensors','json'):
        s = SpecStats.load(old/f'stats.{suffix}')
        for k,v in dict(mean=s.mean, std=s.std, median=s.quantile([.5])).items(): close(v.flatten(), torch.tensor(want[k], dtype=v.dtype), 1e-9)
        assert s.n_clips==want['clips']

@pytest.mark.parametrize('old', OLD, ids=lambda p: p.name)
def test_models_of_earlier_versions_answer_as_then(old):
    "1e-4: another torch may sum in another order"
    want = json.loads((old/'expected.json').read_text()); p = load_spec_model(old/'model').predict(old/'clip.flac')
    assert p.label==want['label']; close(p.probabilities, want['probabilities'], 1e-4)

@pytest.mark.parametrize('old', OLD, ids=lambda p: p.name)
def test_learners_of_earlier_versions_answer_as_then(old):
    from importlib.metadata import version
    want = json.loads((old/'expected.json').read_text()); then = want['versions']
    changed = {k:(v,version(k)) for k,v in then.items() if k in ('torch','fastai','fastcore','fasttransform') and version(k)!=v}
    try: learn = load_learner(old/'learner.pkl')
    except Exception as e:
        if changed: pytest.skip(f'a pickle of other versions does not load: {changed}: {type(e).__name__}: {e}')
        raise
    with learn.no_bar(): label,_,p = learn.predict(old/'clip.flac')
    assert label==want['label']; close(p, want['probabilities'], 1e-4)
    assert SpecModel.from_learner(learn).predict(old/'clip.flac').label==label

def test_what_earlier_versions_saved_is_here_and_small():
    assert OLD and all(sum(f.stat().st_size for f in p.rglob('*') if f.is_file())<300_000 for p in OLD)

# ---- what once went wrong

def test_many_savers_leave_a_whole_folder(model, tmp_path):
    d = model.save(tmp_path/'m')
    pids = []
    for k in range(4):
        if not (pid:=os.fork()):
            try:
                for _ in range(5): model.save(d, card=f'saver {k}')
                os._exit(0)
            except BaseException: os._exit(1)
        pids.append(pid)
    assert [os.waitpid(p, 0)[1] for p in pids]==[0]*4
    assert load_spec_model(d).vocab==model.vocab

@pytest.mark.parametrize('change,what', [(_set('frontend','settings','pad',10**9),'pad: expected at most'), (_set('frontend','settings','n_mels',10**9),'n_mels: expected at most'), (_set('frontend','clip_samples',10**12),'clip_samples: expected at most'),
    (_set('frontend','then',[{'name':'Delta','width':9}]*12),'then: expected at most'), (_set('labels',{'a':1,'b':2}),'labels: expected a list'), (_set('channels_last','no'),"channels_last: expected true or false, got 'no'"), (_set('unchecked',1),'unchecked: expected true'), (_set('card',['x']),'card: expected a dict, got list'), (_set('card',{'title':3}),r"card\['title'\]: expected a string")], ids=lambda o: 'changed' if callable(o) else None)
def test_values_that_cannot_be_are_refused(folder, tmp_path, change, what):
    with pytest.raises(ValueError, match=what) as e: load_spec_model(edited(folder, tmp_path/'m', change))
    assert str(tmp_path/'m') in str(e.value)

def test_long_recordings_of_absurd_rates_are_refused(model):
    with pytest.raises(ValueError, match='expected a sample rate nearer to'): model.predict_long(np.zeros(48000, np.float32), 1, hop=.5)
    with pytest.raises(ValueError, match='sr: expected'): model.predict(np.zeros(48000, np.float32), float('inf'))

def test_a_clip_of_which_most_is_not_heard_is_told_of(model, clips, tmp_path):
    sf.write(tmp_path/'long.wav', np.random.default_rng(0).uniform(-.1, .1, 5*model.clip_samples), model.sr)
    sf.write(short:=tmp_path/'short.wav', np.random.default_rng(0).uniform(-.1, .1, model.clip_samples), model.sr)
    with pytest.warns(UserWarning, match='1 of 2 files are longer than the 0.6 s that(.|\n)*long.wav'): model.predict_files([short,tmp_path/'long.wav'], progress=False)
    with warnings.catch_warnings(): warnings.simplefilter('error'); model.predict_files([short], progress=False)
    x = lambda part: np.random.default_rng(0).uniform(-.1, .1, int(part*.6*44100))
    for part in (.5,1.,1.019):
        with warnings.catch_warnings(): warnings.simplefilter('error'); model.predict(x(part), 44100)
    for part in (1.021,1.2,9.):
        with pytest.warns(UserWarning, match='is longer than the 0.6 s that this model hears'): model.predict(x(part), 44100)
        sf.write(tmp_path/'part.wav', x(part), 44100)
        with pytest.warns(UserWarning, match='1 of 2 files are longer'): model.predict_files([short,tmp_path/'part.wav'], progress=False)

def test_names_that_are_no_utf8_and_readers_that_leave(folder, clips, tmp_path):
    bad = os.fsencode(tmp_path)+b'/bad\xff.wav'; shutil.copy(clips[0], bad)
    run = lambda *a, **k: subprocess.run([sys.executable,'-c','import sys; from specnorm_fastai.cli import predict; sys.exit(predict())',*map(str, a)], text=True, stderr=subprocess.PIPE, **k)
    r = run(folder, tmp_path, clips[0], '--skip-errors', '--out', tmp_path/'o.csv')
    assert r.returncode in (0,3) and len(pd.read_csv(tmp_path/'o.csv'))==2, r.stderr
    r,w = os.pipe(); os.close(r)
    r = run(folder, clips[0], stdout=w); os.close(w)
    assert r.returncode==141 and not r.stderr.strip(), r.stderr

def test_a_plot_holds_what_wins_for_longest(monkeypatch):
    import matplotlib; matplotlib.use('Agg')
    import matplotlib.pyplot as plt
    vocab = list('abcde')
    p = torch.tensor([[.6,.4,0,0,0],[.6,.4,0,0,0],[0,.45,.55,0,0],[0,.45,0,.55,0],[0,.49,0,0,.51]])
    long = share.LongPrediction(p, [vocab[i] for i in p.argmax(1)], vocab, 1., 1., 5., (), name='x.wav', silent=np.array([0,0,0,0,1], bool))
    _,ax = long.plot(k=2)
    said = [t.get_text() for t in ax.get_legend().get_texts()]
    assert said[0].startswith('and 2 that are likeliest') and said[1:]==['a','c'] and len(ax.patches)>=1  # not b, which never wins
    assert [t.get_text() for t in long.plot(k=5)[1].get_legend().get_texts()]==vocab
    plt.close('all')

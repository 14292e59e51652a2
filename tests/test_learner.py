"Models and learners"
import subprocess,sys,warnings
import pytest, torch
from fastai.vision.all import (Callback,CategoryBlock,ColReader,DataBlock,MultiCategoryBlock,load_learner,nn,pd,xresnet18,xresnet50)
from torchvision.models import resnet18
from specnorm_fastai.all import *

def _dls(path, *tfms, **kw):
    to_mel = AudioToSpec.from_cfg(AudioConfig.BasicMelSpectrogram(n_fft=512, hop_length=256, n_mels=32))
    block = DataBlock(blocks=(AudioBlock(crop_signal_to=500, **kw), CategoryBlock), get_x=ColReader('filename', pref=path/'audio'), get_y=ColReader('category'),
                      splitter=CrossValidationSplitter(fold=1), batch_tfms=[AudioNormalize(), to_mel, *tfms])
    return block.dataloaders(pd.read_csv(path/'meta'/'synthetic.csv'), bs=16, num_workers=0)

@pytest.mark.parametrize('arch', [xresnet18, lambda n_out: resnet18(num_classes=n_out)])
@pytest.mark.parametrize('n_in', [1,2,4])
def test_gray_stem_equals_the_same_image_in_all_channels(arch, n_in):
    m = arch(n_out=5).eval()
    x = torch.randn(2,1,64,50)
    with torch.no_grad():
        want = m(x.expand(-1,3,-1,-1))
        got = make_xresnet_grayscale(m, n_in)(x.expand(-1,n_in,-1,-1))
    assert torch.allclose(got, want, atol=1e-4)  # float32 sums in another order

def test_stem_variance_is_that_of_a_fresh_layer():
    torch.manual_seed(0)
    got = torch.stack([xresnet18_grayscale(2)[0][0].weight.std() for _ in range(8)]).mean()
    fresh = torch.stack([_kaiming() for _ in range(8)]).mean()
    assert abs(got/fresh-1)<.1  # 288 weights, 8 draws: 2 % standard error each
def _kaiming():
    c = nn.Conv2d(1,32,3); nn.init.kaiming_normal_(c.weight); return c.weight.std()

def test_an_optimizer_made_before_still_trains_the_stem():
    m = xresnet18(n_out=2)
    opt = torch.optim.SGD(m.parameters(), lr=.1)
    p = m[0][0].weight
    make_xresnet_grayscale(m)
    assert m[0][0].weight is p and p.shape[1]==1
    before = p.detach().clone()
    m(torch.randn(4,1,64,50)).sum().backward(); opt.step()
    assert not torch.equal(before, p)

def test_grayscale_refuses_what_it_cannot_do():
    for bad in (0, -1, 1.5):
        with pytest.raises(ValueError, match='n_in'): make_xresnet_grayscale(xresnet18(), bad)
    with pytest.raises(ValueError, match='no Conv2d'): make_xresnet_grayscale(nn.Linear(2,2))

def test_learner_takes_inputs_outputs_loss_and_metrics_from_the_data(synthetic):
    dls = _dls(synthetic, SpecNormalize())
    state = torch.get_rng_state()
    learn = spec_learner(dls)
    assert learn.model[0][0].in_channels==1 and list(learn.model.children())[-1].out_features==8
    assert type(learn.loss_func).__name__=='CrossEntropyLossFlat' and [m.name for m in learn.metrics]==['accuracy']
    assert sum(isinstance(t, SpecNormalize) for t in dls.after_batch.fs)==1

def test_learner_says_what_is_missing(synthetic):
    block = DataBlock(blocks=(AudioBlock, CategoryBlock), get_x=ColReader('filename', pref=synthetic/'audio'), get_y=ColReader('category'), splitter=CrossValidationSplitter())
    dls = block.dataloaders(pd.read_csv(synthetic/'meta'/'synthetic.csv'), bs=4, num_workers=0)
    with pytest.raises(ValueError, match='no AudioSpectrogram'): spec_learner(dls)

def test_validating_twice_gives_the_same_answer(synthetic):
    learn = spec_learner(_dls(synthetic, SpecNormalize(axes='frequency')))
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3)
        a,b = learn.get_preds()[0],learn.get_preds()[0]
    assert torch.equal(a, b)

_script = """
import sys,json,warnings; warnings.simplefilter('ignore')
from fastai.learner import load_learner
learn = load_learner(sys.argv[1])
from pathlib import Path
with learn.no_bar(): print(json.dumps([learn.predict(f(p))[2].tolist() for p in sys.argv[2:] for f in (Path,str)]))
"""
def test_a_new_process_gives_the_validation_answer_for_a_path(synthetic, tmp_path):
    import json
    learn = spec_learner(_dls(synthetic, SpecNormalize(axes='frequency')), path=tmp_path)
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3); probs,_ = learn.get_preds()
        (label,_,p),row = learn.predict(synthetic/'audio'/learn.dls.valid_ds.items.filename.iloc[3]),learn.predict(learn.dls.valid_ds.items.iloc[3])[2]
    assert torch.allclose(p, probs[3], atol=1e-5) and torch.allclose(row, probs[3], atol=1e-5) and label in learn.dls.vocab
    learn.export('m.pkl')
    files = [str(synthetic/'audio'/f) for f in learn.dls.valid_ds.items.filename[:4]]
    out = subprocess.run([sys.executable,'-c',_script,str(tmp_path/'m.pkl'),*files], capture_output=True, text=True, check=True).stdout
    got = torch.tensor(json.loads(out.strip().splitlines()[-1])).view(4,2,-1)
    assert (got-probs[:4,None]).abs().max()<1e-5

def test_show_results_draws_targets_and_predictions(synthetic):
    import matplotlib.pyplot as plt
    learn = spec_learner(_dls(synthetic, SpecNormalize()))
    with learn.no_bar(): learn.show_results(max_n=2)
    axs = [a for a in plt.gcf().axes if a.get_xlabel()=='time (s)']
    assert len(axs)==2 and all(len(a.get_title().splitlines())==2 and 'Hz' in a.get_ylabel() for a in axs)
    assert any('dB' in t.get_text() for a in plt.gcf().axes for t in a.get_yticklabels())
    plt.close('all')

def test_unequal_clips_warn_and_equal_ones_do_not(synthetic):
    to_mel = AudioToSpec.from_cfg(AudioConfig.BasicMelSpectrogram(n_fft=512, hop_length=256, n_mels=32))
    block = DataBlock(blocks=(AudioBlock, CategoryBlock), get_x=ColReader('filename', pref=synthetic/'audio'), get_y=ColReader('category'), splitter=CrossValidationSplitter(), batch_tfms=to_mel)
    with pytest.warns(UserWarning, match='unequal lengths'): spec_learner(block.dataloaders(pd.read_csv(synthetic/'meta'/'synthetic.csv'), bs=8, num_workers=0))
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter('always'); spec_learner(_dls(synthetic))
    assert not any('unequal' in str(o.message) for o in w)
    from specnorm_fastai.augment import CropTime
    with warnings.catch_warnings():
        warnings.simplefilter('error'); spec_learner(block.new(batch_tfms=[to_mel,CropTime(500)]).dataloaders(pd.read_csv(synthetic/'meta'/'synthetic.csv'), bs=8, num_workers=0))

def test_a_batch_larger_than_the_data_is_an_error(synthetic):
    dls = _dls(synthetic)
    dls.train.bs = 1000
    with pytest.raises(ValueError, match='bs: a batch of 1000 is more than the 64 train items'): spec_learner(dls)

def test_an_arch_of_another_kind_says_how_to_give_it(synthetic):
    with pytest.raises(TypeError, match='arch: expected a name, a function of n_out and n_in.*make_xresnet_grayscale'): spec_learner(_dls(synthetic), resnet18)

def test_top_losses_are_drawn(synthetic):
    import matplotlib.pyplot as plt
    from fastai.vision.all import ClassificationInterpretation
    learn = spec_learner(_dls(synthetic, SpecNormalize()))
    with learn.no_bar(): ClassificationInterpretation.from_learner(learn).plot_top_losses(2)
    axs = [a for a in plt.gcf().axes if a.get_xlabel()=='time (s)']
    assert len(axs)==2 and all('loss' in a.get_title() and ', is ' in a.get_title() for a in axs)

@pytest.mark.parametrize('shape', [(1,64,126), (1,20,8), (1,33,5), (3,7,1)])
def test_the_small_network_takes_spectrograms_of_any_size(shape):
    m = small_cnn(n_out=5, n_in=shape[0], width=4)
    assert m(torch.randn(3,*shape)).shape==(3,5)
    assert not any(isinstance(o, nn.Conv2d) and o.bias is not None for o in m.modules())

def test_the_small_network_refuses_odd_sizes():
    for k in ('n_out','n_in','width'):
        for bad in (0, 1.5, True, None):
            with pytest.raises(ValueError, match=f'{k}: expected a whole number above 0'): small_cnn(**{k:bad})

class _Seen(nn.Module):
    "What a layer got, and whether autocast was on"
    def __init__(self): super().__init__(); self.seen = []
    def forward(self, x): self.seen.append((x.dtype, torch.is_autocast_enabled('cpu'))); return x

def test_bfloat16_runs_the_network_in_half_and_nothing_else(synthetic):
    seen = _Seen()
    learn = spec_learner(_dls(synthetic, SpecNormalize()), nn.Sequential(nn.Conv2d(1,4,3), seen, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4,8)),
                         precision='bfloat16')
    losses = []
    class Look(Callback):
        order = 60
        def after_loss(self): losses.append((self.learn.pred.dtype, self.learn.loss.dtype, torch.is_autocast_enabled('cpu')))
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, 1e-3, cbs=Look()); probs = learn.get_preds()[0]
    assert set(seen.seen)=={(torch.bfloat16,True)} and set(losses)=={(torch.float32,torch.float32,False)}
    assert probs.dtype==torch.float32 and all(p.dtype==torch.float32 for p in learn.model.parameters())
    assert all(p.grad is None or p.grad.dtype==torch.float32 for p in learn.model.parameters())
    assert 'forward' not in learn.model.__dict__

def test_an_interrupted_training_leaves_no_autocast_on(synthetic):
    class Stop(nn.Module):
        def forward(self, x): raise KeyboardInterrupt
    learn = spec_learner(_dls(synthetic), nn.Sequential(nn.Conv2d(1,4,3), Stop()), precision='bfloat16')
    with pytest.raises(KeyboardInterrupt), learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    assert not torch.is_autocast_enabled('cpu') and 'forward' not in learn.model.__dict__
    learn.model[1] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4,8))
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    assert 'forward' not in learn.model.__dict__ and not torch.is_autocast_enabled('cpu')

def test_precision_and_channels_last_are_by_name(synthetic):
    dls = _dls(synthetic)
    for kw,want in ((dict(),(False,torch.backends.mkldnn.is_available())), (dict(channels_last=False),(False,False)), (dict(precision='bfloat16'),(True,True)), (dict(precision='bfloat16', channels_last=False),(True,False)),
                    (dict(channels_last=True),(False,True))):
        learn = spec_learner(dls, small_cnn, **kw)
        assert (hasattr(learn, 'autocast'),hasattr(learn, 'channels_last'))==want
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    assert learn.model[1][0].weight.is_contiguous(memory_format=torch.channels_last)
    with pytest.raises(ValueError, match="precision: expected one of .*got 'fp16'"): spec_learner(dls, precision='fp16')
    with pytest.raises(ValueError, match='channels_last: expected True'): spec_learner(dls, channels_last='yes')

def test_only_networks_known_to_fit_are_put_into_channels_last(synthetic):
    dls,flat = _dls(synthetic),nn.Sequential(nn.Conv2d(1,4,3), nn.AdaptiveAvgPool2d(2), nn.Linear(2,2))
    assert not hasattr(spec_learner(dls, flat), 'channels_last')  # it may hold a view, which needs PyTorch's order
    known = torch.backends.mkldnn.is_available()
    assert all(hasattr(spec_learner(dls, a), 'channels_last')==known for a in ('small','xresnet18',xresnet18_grayscale,make_xresnet_grayscale(xresnet18(n_out=8))))

@pytest.mark.parametrize('arch', ['small','xresnet18'])
def test_channels_last_gives_the_same_predictions_and_gradients(arch):
    torch.manual_seed(0)
    m,x,y = spec_model(arch, 4).eval(),torch.randn(3,1,64,51),torch.tensor([0,1,2])
    def both(m):
        m.zero_grad(); p = m(x); F.cross_entropy(p, y).backward()
        return [p.detach(),*(q.grad.clone() for q in m.parameters())]
    a,b = both(m),both(m.to(memory_format=torch.channels_last))
    for u,v in zip(a, b): assert (u-v).abs().max()<=1e-4*max(u.abs().max(), 1e-3)  # sums of up to some 1e5 float32 products in another order

def test_an_exported_bfloat16_learner_predicts_as_at_validation(synthetic, tmp_path):
    learn = spec_learner(_dls(synthetic, SpecNormalize()), small_cnn, path=tmp_path, precision='bfloat16')
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3); probs,_ = learn.get_preds()
    learn.export('m.pkl'); learn.save('m'); learn.load('m')
    again = load_learner(tmp_path/'m.pkl')
    with again.no_bar(): p = again.predict(synthetic/'audio'/learn.dls.valid_ds.items.filename.iloc[2])[2]
    assert p.dtype==torch.float32 and (p-probs[2]).abs().max()<.02  # 8 bits: batches of other sizes round elsewhere

@pytest.mark.parametrize('name', ['small','xresnet18','xresnet34','xresnet50'])
@pytest.mark.parametrize('n_in', [1,3])
def test_own_networks_by_name(name, n_in):
    with torch.no_grad(): assert spec_model(name, 4, n_in).eval()(torch.randn(2,n_in,40,30)).shape==(2,4)

def test_an_unknown_name_lists_near_ones(synthetic, monkeypatch):
    dls = _dls(synthetic)
    with pytest.raises(ValueError, match="no network 'xresnet81'; did you mean 'xresnet18'"): spec_learner(dls, 'xresnet81')
    import specnorm_fastai.learner as l
    monkeypatch.setattr(l, '_timm', lambda: None)
    with pytest.raises(ValueError, match="no network 'resnet18'; did you mean .*pip install timm"): spec_model('resnet18', 2)
    with pytest.raises(TypeError, match='name: expected the name of a network, got int'): spec_model(3, 2)
    with pytest.raises(ValueError, match="no pretrained weights for 'small'"): spec_learner(dls, 'small', pretrained=True)
    with pytest.raises(ValueError, match='pretrained: expected with the name of a network'): spec_learner(dls, pretrained=True)
    for k in ('n_out','n_in'):
        with pytest.raises(ValueError, match=f'{k}: expected a whole number'): spec_model('small', **{**dict(n_out=2), k:0})

def test_a_pretrained_xresnet50_keeps_all_but_head_and_stem(monkeypatch):
    import fastai.vision.models.xresnet as x
    torch.manual_seed(0)
    was = x.xresnet50(n_out=1000).eval()
    monkeypatch.setattr(x, 'load_state_dict_from_url', lambda *args, **kw: {'model':was.state_dict()})
    sg = torch.randn(2,1,32,32)
    with torch.no_grad(): want = nn.Sequential(*list(was)[:-1])(sg.expand(-1,3,-1,-1))
    for n_in in (1,2,3):
        m = spec_model('xresnet50', 7, n_in, pretrained=True).eval()
        with torch.no_grad(): got = nn.Sequential(*list(m)[:-1])(sg.expand(-1,n_in,-1,-1))
        assert (got-want).abs().max()<1e-3*want.abs().max() and m[-1].out_features==7

@pytest.mark.parametrize('name', ['resnet18','efficientnet_b0','convnext_atto','mobilenetv3_small_050'])
def test_timm_networks_by_name_and_with_their_weights(name, monkeypatch):
    timm = pytest.importorskip('timm')
    torch.manual_seed(0)
    was = timm.create_model(name, num_classes=0).eval()
    import timm.models._builder as b
    full = timm.create_model(name)
    weights = {**full.state_dict(), **was.state_dict()}
    for f in ('load_state_dict_from_hf','load_state_dict_from_url'): monkeypatch.setattr(b, f, lambda *args, **kw: dict(weights))
    sg = torch.randn(2,1,64,64)
    with torch.no_grad(): want = was(sg.expand(-1,3,-1,-1))
    for n_in in (1,2,3,4):
        m = spec_model(name, 6, n_in, pretrained=True).eval()
        with torch.no_grad():
            assert m(sg.expand(-1,n_in,-1,-1)).shape==(2,6)
            body = m.forward_head(m.forward_features(sg.expand(-1,n_in,-1,-1)), pre_logits=True)
        assert (body-want).abs().max()<1e-3*want.abs().max()+1e-6
        assert spec_model(name, 6, n_in)(torch.randn(2,n_in,64,64)).shape==(2,6)

def test_a_pretrained_network_trains_its_head_first_and_adds_no_normalization(synthetic, tmp_path, monkeypatch):
    timm = pytest.importorskip('timm')
    import timm.models._builder as b
    weights = timm.create_model('resnet18').state_dict()
    for f in ('load_state_dict_from_hf','load_state_dict_from_url'): monkeypatch.setattr(b, f, lambda *args, **kw: dict(weights))
    dls = _dls(synthetic, SpecNormalize())
    before = [type(f) for f in dls.after_batch.fs]
    learn = spec_learner(dls, 'resnet18', pretrained=True, path=tmp_path, precision='bfloat16')
    assert [type(f) for f in dls.after_batch.fs]==before
    assert torch.equal(learn.model.conv1.weight, weights['conv1.weight'].sum(1, keepdim=True))
    conv,fc = learn.model.layer1[0].conv1.weight,learn.model.fc.weight
    learn.freeze()
    assert not conv.requires_grad and fc.requires_grad
    with learn.no_bar(), learn.no_logging(): learn.fine_tune(1, 1e-3); probs,_ = learn.get_preds()
    learn.export('t.pkl')
    with (again:=load_learner(tmp_path/'t.pkl')).no_bar(): p = again.predict(synthetic/'audio'/dls.valid_ds.items.filename.iloc[0])[2]
    assert (p-probs[0]).abs().max()<.02  # 8 bits

def test_head_splitter_takes_the_last_linear_layer():
    for m in (spec_model('small', 3), spec_model('xresnet18', 3), nn.Sequential(nn.Conv2d(1,2,3), nn.Linear(2,4), nn.Linear(4,3))):
        body,head = head_splitter(m)
        assert [p.shape[0] for p in head]==[3,3] and len(body)+len(head)==len(list(m.parameters()))

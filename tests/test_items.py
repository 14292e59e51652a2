"What travels with an item is right or dropped, never wrong: also where batch and channel have the same size"
import numpy as np, pytest, torch, torch.nn.functional as F
from specnorm_fastai.all import *

P = torch.tensor([1,0])
def _inplace(name, *a):
    def f(x): x = x.clone(); getattr(x, name)(*a); return x
    return f
def _set(f):
    def g(x): x = x.clone(); f(x); return x
    return g
ops = dict(
    swapaxes=lambda x: x.swapaxes(0,1), movedim=lambda x: x.movedim(0,1), mT=lambda x: x.transpose(0,1), einsum=lambda x: torch.einsum('ab...->ba...',x),
    transpose_=_inplace('transpose_',0,1), unsqueeze_=_inplace('unsqueeze_',0), reversed=lambda x: x.flip(0), flipkw=lambda x: torch.flip(input=x, dims=(0,)),
    setitem=_set(lambda x: x.__setitem__(0, x[1])), setall=_set(lambda x: x.__setitem__(slice(None), x.plain().flip(0))), copy_=lambda x: x.clone().copy_(x.plain().flip(0)),
    index_copy=lambda x: x.index_copy(0,P,x.plain()), index_put=lambda x: torch.index_put(x,(P,),x.plain()), scatter=lambda x: x.masked_scatter(torch.ones(x.shape).bool(),x.plain().flip(0)),
    topk=lambda x: x.topk(x.shape[-1],-1,largest=False).values, sort=lambda x: torch.sort(x,0,descending=True)[0], cummax=lambda x: x.cummax(0).values,
    shift=lambda x: F.pad(x,(2,-2)), shift2=lambda x: F.pad(x,(-2,2)), roll=lambda x: torch.roll(input=x, shifts=1, dims=0), fftshift=lambda x: torch.fft.fftshift(x,dim=0),
    addkw=lambda x: torch.add(x, other=x[P]), where=lambda x: torch.where(torch.tensor(False),x,x[P]), addflip=lambda x: x+x.flip(0), lerp=lambda x: torch.lerp(x,x[P],.5),
    lerpkw=lambda x: torch.lerp(x,end=x[P],weight=.5), iadd=lambda x: x.clone().__iadd__(x[P]), catplain=lambda x: torch.cat([x.plain(),x]), catplain2=lambda x: torch.cat([x,x.plain()]),
    catrev=lambda x: torch.cat([x[1:],x[:1]]), vstack=lambda x: torch.vstack([x[1:],x[:1]]), concat=lambda x: torch.concat([x,x[:1]]), batchplusitem=lambda x: x+x[1], itemplusbatch=lambda x: x[1]+x,
    index=lambda x: x[P], lists=lambda x: x[[1,0],0:1], mask=lambda x: x[torch.tensor([False,True])], timeidx=lambda x: x[...,torch.arange(11,-1,-1)], timeslice=lambda x: x[...,2:],
    step=lambda x: x[...,1::3], newaxis=lambda x: x[None], reshape=lambda x: x.reshape(-1).flip(0).view(x.shape), expand=lambda x: x[:1].expand(2,*x.shape[1:]),
    pool=lambda x: F.avg_pool1d(x,3,1,1) if x.ndim==3 else x, tensordot=lambda x: torch.tensordot(torch.tensor([[0.,1],[1,0]]),x,dims=1), scaled=lambda x: x*2+x.mean(-1,keepdim=True)*0)

def _batch(kind, ns):
    "Item i holds i+1 where it is real and 0 behind"
    v = torch.zeros((2,2,12) if kind is AudioTensor else (2,2,3,12))
    for i,n in enumerate(ns): v[i,...,:n] = i+1
    return kind(v, lengths=list(ns), fn=('f1','f2'), **({'sr':16000} if kind is AudioTensor else {}))

@pytest.mark.parametrize('name', ops)
@pytest.mark.parametrize('kind', [AudioTensor,AudioSpectrogram])
def test_no_operation_puts_real_values_behind_an_end_or_a_wrong_name(kind, name):
    for ns in ((5,9),(12,4),(3,12),(7,7)):
        y = ops[name](_batch(kind, ns))
        if not isinstance(y, kind): continue
        lead = y._n_lead()
        if y.lengths is not None:
            assert tuple(y.lengths.shape)==tuple(y.shape[:lead])
            p = y.plain().abs()
            while p.ndim>lead+1: p = p.amax(lead)
            last = torch.where(p!=0, torch.arange(1,p.shape[-1]+1), 0).amax(-1)
            assert (last<=y.lengths).all(), (ns, y.lengths, last)
        if isinstance(y.fn, tuple): assert list(y.fn)==[f'f{int(v)}' for v in y.plain().flatten(1).amax(1)] or name in ('scaled',)

def test_arithmetic_casts_and_indexing_keep_them():
    x = _batch(AudioTensor, (5,9))
    for y in (x*2, 1-x, x.double(), x.clamp(0,1), x.clone(), x.detach(), -x, x/x.abs().amax(-1,keepdim=True), x.mean(1,keepdim=True), x[:2], x[...,:12], torch.zeros_like(x)):
        assert y.lengths.tolist()==[5,9] and y.fn==('f1','f2') and y.sr==16000
    assert x[...,:7].lengths.tolist()==[5,7] and x[1].lengths==9 and x[1].fn=='f2' and [o.fn for o in x]==['f1','f2']

def test_a_mixture_is_as_long_as_the_longer():
    x = _batch(AudioTensor, (5,9))
    assert torch.lerp(x, x[P], .3).lengths.tolist()==[9,9] and torch.add(x, other=x[P]).lengths.tolist()==[9,9]

def test_sample_rates_are_whole_numbers():
    assert AudioTensor(torch.zeros(1,4), sr=16000.).sr==16000
    for sr in (0, -1, 44100.5):
        with pytest.raises(ValueError, match='sr: expected a whole number'): AudioTensor(torch.zeros(1,4), sr=sr)

class _All:
    def __contains__(self, o): return True

@pytest.mark.parametrize('kind', [AudioTensor,AudioSpectrogram])
def test_the_short_way_of_an_operation_gives_what_the_long_one_gives(kind, monkeypatch):
    "Elementwise operations and indexing skip fastai's own `__torch_function__`"
    from specnorm_fastai import core
    more = dict(mul=lambda x: x*2, rsub=lambda x: 1-x, double=lambda x: x.double(), detach=lambda x: x.detach(), grad=lambda x: x.grad, data=lambda x: x.data, type=lambda x: x.type(),
                imul=lambda x: x.clone().mul_(2), mean=lambda x: x.mean(-2, keepdim=True), item=lambda x: x[1], none=lambda x: x[None], both=lambda x: x+x.flip(0), out=lambda x: torch.mul(x, 2, out=x.clone()),
                one=lambda x: x[0,0], slice=lambda x: x[...,3:7], bool=lambda x: x[x>0], max=lambda x: x.max(-1), cmp=lambda x: x>0, where=lambda x: torch.where(x>0, x, 0.), plainmul=lambda x: x.plain()*x,
                index_k=lambda x: x[..., ::2], lengthless=lambda x: kind(x.plain().clone())*2, str_fn=lambda x: kind(x[0], fn='a')*2, shape=lambda x: (x.shape,x.ndim,x.dtype,len(x),x.numel(),x.stride()))
    def flat(o):
        if isinstance(o, torch.Tensor):
            d = {k:(v.tolist() if isinstance(v, torch.Tensor) else v) for k,v in o.__dict__.items()}
            return type(o),tuple(o.shape),o.dtype,o.as_subclass(torch.Tensor).tolist(),d
        return tuple(map(flat, o)) if isinstance(o, (tuple,list)) else o
    for ns in ((5,9),(12,4),(12,12)):
        for name,f in {**ops, **more}.items():
            short = flat(f(_batch(kind, ns)))
            with monkeypatch.context() as m: m.setattr(core, '_nowrap', _All()); m.setattr(core, '_tells', frozenset()); long = flat(f(_batch(kind, ns)))
            assert short==long, name
    x = _batch(kind, (5,9)); y = x*2
    y.__dict__['new'] = 1
    assert 'new' not in x.__dict__

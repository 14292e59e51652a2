"What the published experiment did, in our own words and on today's libraries"
import math

import numpy as np
import torch
from fastai.data.block import CategoryBlock,DataBlock,TransformBlock
from fastai.data.transforms import ColReader,IndexSplitter
from fastai.torch_core import TensorBase
from fasttransform.transform import Transform

class PublishedRecorder:
    "Mean and std of each batch, averaged with the number of items as weights"
    def __init__(self, dims): self.dims,self.n = dims,0
    def update(self, x):
        k,m,s = len(x),x.mean(self.dims, keepdim=True),x.std(self.dims, keepdim=True)
        if not self.n: self.n,self.mean,self.var = k,m,s**2
        else:
            n,d = self.n+k,m-self.mean
            self.var = (self.n*self.var+k*s**2)/n + self.n*k/n**2*d**2
            self.mean,self.n = (self.n*self.mean+k*m)/n,n
    @property
    def std(self): return self.var.sqrt()

class Wave(TensorBase): pass
class Spec(TensorBase): pass

def read(fn):
    import soundfile as sf
    x,sr = sf.read(str(fn), dtype='float32', always_2d=True)
    res = Wave(torch.from_numpy(x.T.copy())); res.sr = sr
    return res

class Resampled(Transform):
    def __init__(self, sr): self.sr = sr
    def encodes(self, x:Wave):
        from scipy.signal import resample_poly
        if x.sr==self.sr: return x
        g = math.gcd(x.sr, self.sr)
        y = Wave(torch.from_numpy(np.ascontiguousarray(resample_poly(x.as_subclass(torch.Tensor).numpy(), self.sr//g, x.sr//g, axis=-1).astype(np.float32))))
        y.sr = self.sr
        return y

class Mono(Transform):
    def encodes(self, x:Wave): return x if x.shape[0]==1 else x.mean(0, keepdim=True)

class Crop(Transform):
    def __init__(self, n): self.n = n
    def encodes(self, x:Wave):
        k = x.shape[-1]
        if k>=self.n: at = (k-self.n)//2; return x[...,at:at+self.n]
        return torch.nn.functional.pad(x, ((self.n-k)//2, self.n-k-(self.n-k)//2))

class Standard(Transform):
    def encodes(self, x:Wave): return (x-x.mean())/x.std()

class ToDB(Transform):
    "torchaudio's power spectrogram in dB, or its mel spectrogram"
    def __init__(self, sr=16000, **mel):
        import torchaudio.transforms as T
        self.f = T.MelSpectrogram(sr, **mel) if mel else T.Spectrogram(n_fft=400, hop_length=200, power=2)
        self.db = T.AmplitudeToDB()
    def encodes(self, x:Wave): return Spec(self.db(self.f(x.as_subclass(torch.Tensor))))

class StandardSpec(Transform):
    order = 99
    def __init__(self, mean, std): self.mean,self.std = mean,std
    def encodes(self, x:Spec): return (x-self.mean)/self.std

def published_block(path, to_db, seconds=5., sr=16000, norm=(), n_valid=1):
    "The DataBlock of the published pipeline over a folder in ESC-50's layout"
    block = TransformBlock(type_tfms=[read], item_tfms=[Resampled(sr), Mono(), Crop(int(seconds*sr))])
    return DataBlock(blocks=(block,CategoryBlock), get_x=ColReader('filename', pref=path/'audio'), get_y=ColReader('category'),
        splitter=IndexSplitter(range(n_valid)), batch_tfms=[Standard(), to_db, *norm])

def published_pass(dls):
    "Its two recorders, filled from the train batches"
    recs = PublishedRecorder((0,2,3)),PublishedRecorder((0,1,3))
    with torch.no_grad():
        for x,_ in dls.train:
            for r in recs: r.update(x)
    return recs

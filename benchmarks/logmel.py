"Waveforms to spectrograms in dB: [32, 1, 80000] at 16 kHz, and the linear one of a single clip"
import numpy as np
import torch

from specnorm_fastai.core import AudioTensor
from specnorm_fastai.features import AudioConfig,AudioToSpec
from .timing import interleaved,row,skipped

def _rivals(kw, x):
    "Name to a function of no arguments, for what is installed"
    res,y,args = {},x.plain(),dict(sample_rate=16000, n_fft=kw['n_fft'], hop_length=kw['hop_length'], n_mels=kw['n_mels'])
    import torchaudio.transforms as T
    f,db = T.MelSpectrogram(**args),T.AmplitudeToDB()
    res['torchaudio'] = lambda: db(f(y))
    try:
        from nnAudio.features.mel import MelSpectrogram
        g = MelSpectrogram(sr=16000, n_fft=kw['n_fft'], hop_length=kw['hop_length'], n_mels=kw['n_mels'], verbose=False)
        res['nnAudio'] = lambda: 10*torch.log10(g(y[:,0]).clamp(min=1e-10))
    except ImportError: pass
    try:
        import librosa
        z = y[:,0].numpy()
        def each():
            return np.stack([librosa.power_to_db(librosa.feature.melspectrogram(y=c, sr=16000, n_fft=kw['n_fft'], hop_length=kw['hop_length'], n_mels=kw['n_mels']), top_db=None) for c in z])
        res['librosa, clip by clip'] = each
    except ImportError: pass
    return res

def run(o):
    res = []
    x = AudioTensor(torch.randn(2 if o.tiny else 32, 1, 8000 if o.tiny else 80000)*.1, sr=16000)
    for kw in (dict(n_fft=1024, hop_length=320, n_mels=64),dict(n_fft=400, hop_length=160, n_mels=128)):
        ours,rivals = AudioToSpec.from_cfg(AudioConfig.BasicMelSpectrogram(**kw)),_rivals(kw, x)
        with torch.no_grad(): t = interleaved({'ours':lambda: ours(x), **rivals}, rounds=o.rounds(9), warmup=1, budget=o.budget(20), least=3)
        name = f"log-mel, n_fft {kw['n_fft']}, hop {kw['hop_length']}, {kw['n_mels']} bands"
        res += [row(name, f'batch of {len(x)} clips', t, 'ours', rival=k) for k in rivals]
        res += [skipped(name, f'against {k}', f'{k} is not installed') for k in ('nnAudio','librosa, clip by clip') if k not in rivals]
    import torchaudio.transforms as T
    for what,y in (('one clip',x[:1]),(f'batch of {len(x)} clips',x)):
        ours,f,db = AudioToSpec.from_cfg(AudioConfig.BasicSpectrogram(hop_length=200)),T.Spectrogram(n_fft=400, hop_length=200, power=2),T.AmplitudeToDB()
        p = y.plain()
        with torch.no_grad(): t = interleaved({'ours':lambda: ours(y), 'torchaudio':lambda: db(f(p))}, rounds=o.rounds(15), budget=o.budget(8), least=3)
        res.append(row('linear, n_fft 400, hop 200', what, t, 'ours', rival='torchaudio', note='float64 transforms, so that quiet rows hold; torchaudio computes in float32'))
    return res

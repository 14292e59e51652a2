"The recorder of statistics: one batch, [64, 1, 201, 401] float32"
import torch

from specnorm_fastai.fast import no_kernels
from specnorm_fastai.recorder import StatsRecorder
from .rivals import PublishedRecorder
from .timing import interleaved,row

def run(o):
    shape = (4,1,21,41) if o.tiny else (64,1,201,401)
    x = torch.randn(shape)*20-40
    mask = torch.rand(shape[0],shape[-1])>.2
    lengths = torch.randint(shape[-1]//2, shape[-1]+1, (shape[0],))
    r = {k:StatsRecorder(d) for k,d in (('frequency','frequency'),('global','global'),('masked','frequency'),('lengths','frequency'))}
    full = StatsRecorder((0,3), quantiles=True, groups=128, on_bad='skip')
    rival = [PublishedRecorder((0,2,3)),PublishedRecorder((0,1,3))]
    both,var,plain = 'published recorders, global and per frequency','torch.var_mean per frequency',"this package's PyTorch path"
    def without():
        with no_kernels(): r['frequency'].update(x)
    t = interleaved({'x.sum()':x.sum, both:lambda: [p.update(x) for p in rival], var:lambda: torch.var_mean(x, (0,1,3)),
        'frequency':lambda: r['frequency'].update(x), 'global':lambda: r['global'].update(x), 'masked':lambda: r['masked'].update(x, mask=mask),
        'lengths':lambda: r['lengths'].update(x, lengths=lengths), plain:without, 'full':lambda: full.update(x)}, rounds=o.rounds(31), budget=o.budget(25), before=x.sum, together=.03)
    made = lambda name,what,key,rival=both,**kw: row(name, what, t, key, 'x.sum()', rival, **kw)
    return [made('update', 'one StatsRecorder update, which gives global and per-frequency statistics', 'frequency', at_most=1.5, at_least=15),
        made('update, global', 'the same, asked for global ones', 'global', at_most=1.5, at_least=15),
        made('update, mask', 'a fifth of the frames masked', 'masked', at_most=1.5, at_least=15),
        made('update, lengths', 'items padded by up to a half', 'lengths', at_most=1.5, at_least=15),
        made('update, against var_mean', 'one per-frequency variance in PyTorch', 'frequency', var),
        made('update, without kernels', 'what is done where numba is missing', plain),
        made('update, everything', 'quantiles and 128 groups, as collect_stats does', 'full')]

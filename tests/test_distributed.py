"The pass shared between processes, of torch.distributed or of a Dask cluster: each clip once, the statistics of one process, errors everywhere"
import os,pickle,random,re,signal,subprocess,sys,threading,time
from collections import Counter
from functools import partial
from pathlib import Path
import numpy as np, pytest, torch
import ranks
from fastai.basics import DataLoaders,nn
from specnorm_fastai.all import *
from specnorm_fastai import stats

worlds = (1,2,4)

@pytest.fixture(scope='module')
def path(synthetic):
    ranks.broken(synthetic).write_bytes(b'RIFF and no more')
    return synthetic

@pytest.fixture(scope='module')
def started(path, tmp_path_factory):
    "The ranks, at work while others are tested"
    if not torch.distributed.is_available(): pytest.skip('torch.distributed is not available here')
    out = tmp_path_factory.mktemp('ranks')
    p = subprocess.Popen([sys.executable,'-m','torch.distributed.run','--standalone','--nproc-per-node','2',ranks.__file__,str(path),str(out)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    yield p,out
    if p.poll() is None: p.terminate(); p.wait()

def _same(a, b, tol=1e-10):
    "Two `SpecStats` of the same clips, however they were shared out: what is counted is exact, means and deviations differ by the order of float64 sums"
    for k in ('mean','std'): assert (getattr(a,k)-getattr(b,k)).abs().max()<tol, k
    for k in ('axes','fingerprint','freqs','n_clips'): assert getattr(a,k)==getattr(b,k), k
    for k in ('mask','split','clips_in_split','clustered_by','sample','bad_files'): assert a.provenance.get(k)==b.provenance.get(k), k
    for k in ('counted','silent','bad'): assert a.provenance['frames'][k]==b.provenance['frames'][k], k  # how much padding there is depends on the batches
    assert torch.equal(a.count, b.count) and torch.equal(a._table[0], b._table[0])  # the second: each clip in the same group
    if b.n_clips>1: assert (a.standard_error()-b.standard_error()).abs().max()<tol and (a.standard_error(finite=True)-b.standard_error(finite=True)).abs().max()<tol
    assert (a._extra is None)==(b._extra is None) and (b._extra is None or all(torch.equal(x, y) for x,y in zip(a._extra, b._extra)))

# --- Dask

@pytest.fixture(scope='module')
def client(started, tmp_path_factory):
    "Two worker processes; forked from a server that has imported everything, as importing takes longest"
    distributed = pytest.importorskip('distributed')
    import dask
    from distributed.utils import get_mp_context
    with dask.config.set({'distributed.worker.multiprocessing-method':'forkserver'}):
        get_mp_context().set_forkserver_preload(['distributed','specnorm_fastai.all'])
        with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=tmp_path_factory.mktemp('dask')) as cluster:
            with distributed.Client(cluster) as c: yield c

def _parts(monkeypatch, size=3, fan=3): monkeypatch.setattr(stats, '_measure_on', partial(stats._measure_on, size=size, fan=fan))

def _first_letters(f): return Path(f).name[:6]

@pytest.mark.parametrize('kwargs,n', [({},80), (dict(frac=.31, seed=6),25), (dict(tol=1., seed=7),32), (dict(source=_first_letters),80), (dict(mask=None, quantiles=False),80), (dict(leave_out='AudioNormalize'),80)],
                         ids=lambda o: ('-'.join(o) or 'all') if isinstance(o, dict) else None)
def test_a_cluster_gets_the_statistics_of_one_process(client, path, tmp_path, monkeypatch, kwargs, n):
    monkeypatch.setattr(stats, '_first_look', 32)
    _parts(monkeypatch)
    files,tfms = ranks.audio(path),[ranks.Note(tmp_path),AudioNormalize(),ranks.to_spec()]
    got = collect_stats(files, tfms=tfms, client=client, **kwargs)
    seen = [f.name.split('@') for f in tmp_path.iterdir()]
    assert max(Counter(f for f,_,_ in seen).values())==1 and len(seen)==n==got.n_clips
    pids = {int(p) for _,p,_ in seen}
    assert os.getpid() not in pids and (n<80 or len(pids)==2)
    _same(got, collect_stats(files, tfms=tfms[1:], **kwargs), 1e-12)

def test_a_cluster_fills_recorders_and_takes_few_files(client, path):
    files,tfms = ranks.audio(path)[:1],[ranks.to_spec()]
    (a,),(b,) = collect_stats(files, StatsRecorder('frequency'), tfms=tfms, client=client),collect_stats(files, StatsRecorder('frequency'), tfms=tfms)
    assert (a.mean-b.mean).abs().max()<1e-12 and torch.equal(a.count, b.count) and a.nobservations==1

def test_a_file_that_a_worker_cannot_read_is_named(client, path, monkeypatch):
    _parts(monkeypatch)
    files = ranks.audio(path)[:20]
    with pytest.raises(ValueError, match='cannot read .*broken.wav'): collect_stats([*files[:11],ranks.broken(path),*files[11:]], tfms=[ranks.to_spec()], client=client)
    rec = StatsRecorder()
    with pytest.raises(ValueError, match='(?s)NaN or Inf in 2 clips.*-00001-.*-00014-'): collect_stats(files, rec, tfms=[ranks.to_spec(),ranks.Spoil('-00001-','-00014-')], client=client)
    assert rec.nobservations==0
    _same(collect_stats(files, tfms=[ranks.to_spec()], client=client), collect_stats(files, tfms=[ranks.to_spec()]), 1e-12)  # the cluster is as it was

def test_a_killed_worker_loses_nothing_and_counts_nothing_twice(client, path, tmp_path, monkeypatch):
    "Its finished parts and the one it was at are measured again by the other"
    _parts(monkeypatch, 4, 40)  # nothing is merged before all is measured, so that a lot is lost
    files,tfms,killed = ranks.audio(path),[ranks.Note(tmp_path, .03),ranks.to_spec()],[]
    victim = next(iter(client.run(os.getpid).values()))
    def kill():
        until = time.time()+30
        while time.time()<until and not killed:
            if sum(f'@{victim}@' in f.name for f in tmp_path.iterdir())>=14: os.kill(victim, signal.SIGKILL); killed.append(victim)
            time.sleep(.005)
    t = threading.Thread(target=kill, daemon=True); t.start()
    got = collect_stats(files, tfms=tfms, client=client)
    t.join()
    seen = Counter(f.name.split('@')[0] for f in tmp_path.iterdir())
    assert killed and len(seen)==80==got.n_clips and sum(seen.values())-80>=12  # three parts of four clips at least
    _same(got, collect_stats(files, tfms=tfms[1:]), 1e-12)

# --- torch.distributed

good = {'loaders':64, 'callback':64, 'frac':20, 'tol':32, 'tol frac':45, 'source':39, 'files':61, 'three':3, 'one':1, 'skip':10, 'client':3, 'after':9}  # and how many clips

@pytest.fixture(scope='module')
def here(path):
    "The cases in this one process, without torch.distributed"
    return {k:ranks.run(f) for k,f in ranks.cases(path).items()}

@pytest.fixture(scope='module')
def there(started):
    "What each rank of each world got"
    p,out = started
    try: said,_ = p.communicate(timeout=150)
    except subprocess.TimeoutExpired: p.terminate(); said,_ = p.communicate(); pytest.fail(f'the ranks hang:\n{said[-3000:]}')
    lost = [f'{w}-{r}' for w in worlds for r in range(w) if not (out/f'{w}-{r}.pkl').exists()]
    assert p.returncode==0 and not lost, f'ranks {lost} did not end well:\n{said[-3000:]}'
    return {w:[pickle.loads((out/f'{w}-{r}.pkl').read_bytes()) for r in range(w)] for w in worlds}

@pytest.mark.parametrize('world', worlds)
@pytest.mark.parametrize('case', good)
def test_every_rank_gets_the_statistics_of_one_process(here, there, world, case):
    for r in there[world]:
        assert r[case]['error'] is None
        _same(r[case]['stats'], here[case]['stats'])
        assert r[case]['stats']==there[world][0][case]['stats']  # bit for bit: ranks that differ would train differently

@pytest.mark.parametrize('world', worlds)
@pytest.mark.parametrize('case', good)
def test_ranks_open_each_clip_once_and_share_the_work_evenly(here, there, world, case):
    mine = [r[case]['opened'] for r in there[world]]
    assert Counter(sum(mine, []))==Counter(here[case]['opened']) and max(Counter(here[case]['opened']).values())==1
    n = good[case]
    rounds = {'tol frac':3}.get(case, 1)  # 32, 40 and 45 clips; in each, a rank may get one more
    assert sum(map(len, mine))==n==here[case]['stats'].n_clips and max(map(len, mine))-min(map(len, mine))<=rounds

@pytest.mark.parametrize('world', worlds)
@pytest.mark.parametrize('case', [*good,'inf','broken'])
def test_random_states_stay_on_every_rank(there, world, case): assert all(r[case]['kept'] for r in there[world])

@pytest.mark.parametrize('world', worlds)
@pytest.mark.parametrize('case', ['broken','broken tol'])
def test_a_file_that_one_rank_cannot_read_is_an_error_on_all_of_them(there, world, case):
    "At once, by name; and the next pass goes well ('after', above)"
    assert sum('broken.wav' in r[case]['opened'] for r in there[world])==1
    for r in there[world]: assert 'broken.wav' in r[case]['error'] and 'cannot read' in r[case]['error'] and r[case]['seconds']<15

@pytest.mark.parametrize('world', worlds)
def test_clips_with_inf_on_different_ranks_are_all_named_on_all_ranks(there, world):
    for r in there[world]:
        for w in ('NaN or Inf in 2 clips','-00001-','-00004-'): assert w in r['inf']['error']
        assert sorted(Path(f).name[:8] for f in r['skip']['stats'].provenance['bad_files'])==['1-00001-','1-00004-']

@pytest.mark.parametrize('case', ['set-up','callback'])
def test_a_rank_can_be_alone_with_its_dataloaders(here, there, case):
    "While the other waits: the set-up of SpecNormalize, and distributed=False"
    got = there[2][1]['alone'][case]
    assert 'alone' not in there[2][0] and got['error'] is None and got['seconds']<15 and len(set(got['opened']))==64
    for k in ('mean','std','count'): assert (getattr(got['stats'],k)-getattr(here['loaders']['stats'],k)).abs().max()<1e-10

@pytest.mark.parametrize('case,said', [('other clips','9, 9'), ('more clips','60, 65'), ('no clips','rank 1 of 2 failed: .*got an empty list'), ('another sample','80, 80')])
def test_ranks_that_do_not_agree_say_so_at_once_instead_of_counting_clips_twice_or_waiting(there, case, said):
    "A random split without a seed gives each rank another train split"
    for r in there[2]: assert re.search(said, r[case]['error'] or '') and r[case]['seconds']<5

def test_importing_everything_leaves_what_shares_work_alone(there):
    for w in worlds:
        for r in there[w]: assert r['loaded']==[]

def test_sharing_needs_torch_distributed_to_be_initialized(path):
    with pytest.raises(ValueError, match='distributed: torch.distributed is not initialized'): collect_stats(ranks.loaders(path), distributed=True)

@pytest.mark.parametrize('rank', [0,2])
def test_a_distributed_loader_repeats_items_and_the_pass_does_not(path, here, rank):
    pytest.importorskip('accelerate')
    from fastai.distributed import DistributedDL
    dls = ranks.loaders(path)
    train = DistributedDL(dls.train, rank=rank, world_size=3)
    train._broadcast = lambda t,rank: t
    assert len(train.get_idxs())*3==66  # it would give two of 64 items twice
    many = DataLoaders(DistributedDL(train, rank=rank, world_size=3), dls.valid)
    for f in (lambda: collect_stats(train), lambda: collect_stats(many), lambda: ranks.fitted(many, nn.Linear(1,8))):
        got = ranks.run(f)
        assert got['error'] is None and Counter(got['opened'])==Counter(here['loaders']['opened'])
        _same(got['stats'], here['loaders']['stats'], 1e-15)

# --- both

def test_files_leave_the_random_state_alone(path):
    before = ranks.random_state()
    collect_stats(ranks.audio(path)[:2], tfms=[ranks.to_spec()])
    assert ranks.random_state()==before

@pytest.mark.parametrize('kwargs', [{}, dict(red_dims=(0,3), quantiles=True, groups=128, on_bad='skip')], ids=['plain','finest'])
def test_what_is_sent_does_not_grow_with_the_clips(kwargs):
    sizes,rec = [],StatsRecorder(**kwargs)
    for n in (10,990,4000):
        for _ in range(n//10): rec.update(AudioSpectrogram.create(torch.randn(10,1,5,6), settings=dict(sr=16000), fn=tuple('abcdefghij')))
        sizes.append(len(pickle.dumps(rec)))
    assert rec.nobservations==5000 and max(sizes)-min(sizes)<=16  # a larger whole number takes a few bytes more

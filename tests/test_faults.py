"What goes wrong around the package leaves whole files or none, and says what it is"
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith('linux'), reason='disks, limits and signals are those of Linux')
if sys.platform.startswith('linux'): import faults

KINDS = ['save_stats','save_json','save_npz','save_kaldi','save_wav','save_flac','save_ogg','save_onnx','preprocess','experiment']

@pytest.mark.parametrize('name', KINDS)
def test_a_full_disk_is_an_error_and_no_part_of_a_file(name, tmp_path): faults.full_disk(tmp_path, name)

@pytest.mark.parametrize('name', KINDS)
def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(name, tmp_path): faults.read_only(tmp_path, name)

@pytest.mark.parametrize('what,rounds', [('save',8), ('save_spec_model',6), ('cache',4), ('preprocess',3), ('compare',1), ('to_onnx',1)])
def test_killed_at_any_moment(what, rounds, tmp_path): assert faults.kills[what](tmp_path, rounds)==rounds

def test_rounds_count_only_calls_that_were_killed_and_fail_without_one(monkeypatch):
    seen = []
    def killed(f, *args, most): seen.append(most); return most<.5
    monkeypatch.setattr(faults, 'killed', killed)
    r = faults.Rounds(2, 1.)
    for _ in r: r.kill(None)
    assert r.n==2 and seen==[1,.75,.5625,.421875,.421875]
    monkeypatch.setattr(faults, 'killed', lambda *args, most: False)
    r = faults.Rounds(1, 1.)
    with pytest.raises(faults.Broken, match='0 of 12 calls'):
        for _ in r: r.kill(None)

@pytest.mark.parametrize('how,kind', [('exit','plain'), ('SIGKILL','plain'), ('SIGSEGV','persistent'), ('SIGKILL','persistent'), ('SIGKILL','statistics'), ('exit','statistics')])
def test_a_worker_that_dies_is_an_error_and_no_hang(how, kind): faults.worker_dies(how, kind)

@pytest.mark.parametrize('what', ['statistics','training'])
def test_too_large_a_batch_says_to_lower_bs(what, tmp_path): faults.too_large_a_batch(tmp_path, what)

def test_two_processes_fill_one_cache(tmp_path): faults.two_on_a_cache(tmp_path)
def test_of_two_experiments_in_one_folder_one_is_refused(tmp_path): faults.two_on_a_comparison(tmp_path)

@pytest.mark.parametrize('persistent', [True,False])
def test_training_grows_nothing_from_epoch_to_epoch(persistent):
    import psutil; assert psutil
    import loads
    g = loads.growth(loads.many_epochs(8, persistent=persistent))
    assert all(g[k]<=0 for k in ('files','threads','processes','shm')), g
    assert g['rss_mb']<5, g  # a leak of the batches would be 2 MB an epoch, 10 in all; without one it is some tenths

def test_growth_is_that_of_a_leak():
    pytest.importorskip('psutil')
    import loads
    seen = [dict(rss_mb=800+2*k, files=9, threads=2+(k>4), processes=2, shm=0) for k in range(8)]
    assert loads.growth(seen)==dict(rss_mb=10, files=0, threads=1, processes=0, shm=0)

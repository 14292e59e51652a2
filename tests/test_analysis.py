"The tests of an experiment: against references, and how often they are wrong"
import io,math,re,warnings
import numpy as np,pandas as pd,pytest
from scipy import stats
from specnorm_fastai.analysis import *
from specnorm_fastai.analysis import _needs

names = ('none','global','item','frequency')

def tables(folds=5, seeds=3, clips=100, diff=0., ways=3, seed=0, **kw):
    right,fold = simulate_experiment(folds=folds, seeds=seeds, clips=clips, ways=ways, diff=diff, seed=seed, **kw)
    return simulated_tables(right[0], fold, ways=names[:ways])

# References

def test_corrected_t_is_the_published_formula():
    d = np.random.default_rng(0).normal(.02, .03, 30)
    t = d.mean()/math.sqrt((1/30+10/90)*d.var(ddof=1))  # ten times tenfold, Bouckaert and Frank 2004
    r = corrected_ttest(d, 90, 10)
    assert r['df']==29 and r['p']==pytest.approx(2*stats.t.sf(abs(t), 29), rel=1e-12)
    half = stats.t.ppf(.975, 29)*d.mean()/t
    assert (r['low'],r['high'])==pytest.approx((d.mean()-abs(half), d.mean()+abs(half)))

def test_corrected_t_interval_excludes_zero_where_p_says_so():
    d = np.random.default_rng(0).normal(.03, .03, (500,12))
    r = corrected_ttest(d, 300, 100, level=.9)
    assert 50<(r['p']<=.1).sum()<450 and np.array_equal(r['p']<=.1, (r['low']>0)|(r['high']<0))

def test_corrected_t_of_equal_differences():
    assert corrected_ttest([0.,0.,0.], 3, 1)['p']==1 and corrected_ttest([.5,.5], 3, 1)['p']==0 and np.isnan(corrected_ttest([.1], 3, 1)['p'])

def test_holm_against_known_values():
    assert holm([.001,.01,.03,.5])==pytest.approx([.004,.03,.06,.5])  # R's p.adjust
    assert holm([.5,.03,.01,.001])==pytest.approx([.5,.06,.03,.004])
    assert holm([[.04,.01],[.01,.9]])==pytest.approx(np.array([[.04,.02],[.02,.9]]))
    assert holm([.02,.02,.02])==pytest.approx([.06]*3)  # monotone: no later one is smaller
    assert holm([]).shape==(0,) and np.isnan(holm([np.nan,.01])[0]) and holm([np.nan,.01])[1]==pytest.approx(.02)

@pytest.mark.parametrize('b,c,n', [(40,22,400),(30,30,200),(60,20,400),(25,12,80)])
def test_bootstrap_of_one_run_is_mcnemars_test(b, c, n):
    r = clip_bootstrap(np.repeat([1.,-1.,0.], [b,c,n-b-c])[None])
    mid_p = 2*stats.binom.cdf(min(b,c), b+c, .5)-stats.binom.pmf(min(b,c), b+c, .5)
    assert r['p']==pytest.approx(min(mid_p, 1), abs=.05 if b==c else .012)  # both approximate; 37 to 80 discordant clips
    se = math.sqrt((b+c-(b-c)**2/n)/(n-1)/n)
    assert (r['high']-r['low'])/2==pytest.approx(1.96*se, rel=.05)

def test_bootstrap_over_runs_has_the_width_of_its_two_parts():
    rng = np.random.default_rng(0)
    y = rng.normal(.1, 1, 3000)+rng.normal(0, .05, (30,1))
    r = clip_bootstrap(y, n_boot=40000)
    se = math.hypot(y.mean(0).std(ddof=1)/math.sqrt(3000), y.mean(1).std(ddof=1)/math.sqrt(30))
    assert (r['high']-r['low'])/2==pytest.approx(stats.t.ppf(.975, 60)*se, rel=.04)

def test_few_seeds_make_wide_intervals():
    y = np.zeros((2,1000)); y[0,:30] = 1
    r = clip_bootstrap(y)
    assert (r['high']-r['low'])/2>.9*stats.t.ppf(.975, 1)*.015 and clip_bootstrap(y, seeds=False)['p']<.001<.3<r['p']

def test_bootstrap_of_many_is_that_of_each():
    right,fold = simulate_experiment(3, folds=2, seeds=2, clips=40, ways=3)
    y = right[:,1:]*1.-right[:,:1]
    r = clip_bootstrap(y, fold, n_boot=200)
    for i in np.ndindex(3,2):
        for k,v in clip_bootstrap(y[i], fold, n_boot=200).items(): assert r[k][i]==pytest.approx(v, abs=1e-12)

def test_copies_of_a_clip_are_no_evidence_when_clustered():
    right,fold = simulate_experiment(folds=2, seeds=3, clips=60)
    y = right[0,1]*1.-right[0,0]
    many = [np.repeat(v, 4, -1) for v in (y,fold,np.arange(60))]
    a,b = clip_bootstrap(y, fold),clip_bootstrap(many[0], many[1], cluster=many[2])
    assert a==pytest.approx(b, abs=1e-12)
    free = clip_bootstrap(many[0], many[1])
    assert free['high']-free['low']<.95*(b['high']-b['low'])

def test_runs_weigh_equally_in_the_mean():
    y = np.full((3,6), np.nan)
    y[0],y[1:,:2] = 0,1  # fold 0 has three runs of two clips, fold 1 one of four
    assert clip_bootstrap(y, [0,0,1,1,1,1])['mean']==pytest.approx(.5)

# How often they are wrong

def found(n_sims, ways=6, n_boot=399, block=500, **kw):
    "Share of experiments with any finding, by the rule, by clips and runs, and by Student's paired test"
    hits = []
    for s in range(n_sims//block):
        right,fold = simulate_experiment(block, ways=ways, seed=100+s, **kw)
        t,b = paired_tests(right[:,1:].astype(np.float32)-right[:,:1], fold, n_boot=n_boot)
        runs = np.concatenate([right[...,fold==f].mean(-1) for f in np.unique(fold)], -1)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            naive = stats.ttest_1samp(runs[:,1:]-runs[:,:1], 0, axis=-1).pvalue
        hits.append([(np.nan_to_num(holm(p), nan=1)<=.05).any(-1) for p in (np.maximum(t['p'], b['p']),b['p'],naive)])
    return np.concatenate(hits, -1).mean(-1)

limit = .05+3*math.sqrt(.05*.95/2000)

@pytest.mark.parametrize('folds,seeds,clips', [(4,3,80),(4,3,400),(4,5,80),(4,5,400),(5,5,80),(5,5,400),(5,1,400),(2,3,400),(1,5,80),(1,5,400),(1,2,400),(1,1,80),(1,1,400)])
def test_no_more_false_findings_than_promised(folds, seeds, clips):
    both,here,naive = found(2000, folds=folds, seeds=seeds, clips=clips)
    assert both<=limit
    if seeds>1: assert here<=limit+.02*(folds>1)  # about these train clips, whereas the simulation draws new ones
    if seeds>=3 and clips==400 and folds!=2: assert naive>limit
    if folds*seeds==1: assert both==0

@pytest.mark.parametrize('kw', [dict(interaction=1.2), dict(run=.4), dict(accuracy=.96), dict(difficulty=3.,interaction=.2), dict(train=.1)], ids=str)
def test_it_holds_in_other_worlds_too(kw):
    for folds,seeds in ((5,3),*([(1,4)] if 'train' not in kw else [])):  # one split cannot know of train sets
        assert found(2000, folds=folds, seeds=seeds, clips=200, **kw)[0]<=limit

def test_power_grows_with_the_difference_and_the_clips():
    p = [found(500, ways=2, folds=5, seeds=5, clips=400, diff=d)[0] for d in (.04,.08,.12)]
    assert p[0]<p[1]<p[2] and p[2]>.9 and found(500, ways=2, folds=5, seeds=5, clips=1200, diff=.08)[0]>p[1]

def test_what_it_needs_is_about_enough():
    "Enough clips by the typical of many small experiments give about the power asked for"
    right,fold = simulate_experiment(60, folds=5, seeds=5, clips=200, diff=.09, seed=3)
    said = [_needs(r[1]*1.-r[0], fold, None, .25, .05) for r in right]
    clips = np.median([int(m[1]) if (m:=re.search(r'about (\d+) clips', s)) else 200 for s in said])
    assert 200<clips<2000 and .6<found(500, ways=2, folds=5, seeds=5, clips=int(clips)//5*5, diff=.09)[0]<.99

def test_one_run_in_each_fold_does_not_say_what_more_would():
    right,fold = simulate_experiment(1, folds=4, seeds=1, clips=200, diff=.05, seed=1)
    assert _needs(right[0,1]*1.-right[0,0], fold, None, .25, .05)=='more runs: one in each fold does not tell how much they vary'
    right,fold = simulate_experiment(1, folds=4, seeds=2, clips=200, diff=.05, seed=1)
    assert re.search(r'about \d+ (runs|clips)', _needs(right[0,1]*1.-right[0,0], fold, None, .25, .05))

# The table

def test_analysis_agrees_with_the_tests_it_is_made_of():
    right,fold = simulate_experiment(folds=4, seeds=3, clips=120, ways=3, diff=[.15,0], seed=2)
    df = analyze(*simulated_tables(right[0], fold, ways=names[:3]))
    t,b = paired_tests(right[0,1:]*1.-right[0,:1], fold, n_train=90)
    for k,v in (('diff',t['mean']),('p',t['p']),('diff_low',t['low']),('boot_low',b['low']),('p_boot',b['p'])):
        assert df[k][1:].to_numpy(float)==pytest.approx(v, abs=.005 if 'boot' in k else 1e-9)  # the bootstrap meets the clips in another order
    assert df.p_holm[1:].tolist()==pytest.approx(holm(np.maximum(df.p[1:], df.p_boot[1:])))
    assert df.accuracy.tolist()==pytest.approx(right[0].mean((1,2)).tolist())
    assert np.array_equal((df.verdict[1:]!='not established'), df.p_holm[1:]<=.05)

def test_verdicts():
    df = analyze(*tables(clips=400, ways=4, diff=[.2,-.2,0], seed=1))
    assert df.verdict.tolist()==['baseline','better','worse','not established'] and df.needs.astype(bool).tolist()==[False,False,False,True]
    assert df.attrs['baseline']=='none' and (df.runs==15).all()

def test_another_baseline_turns_the_signs():
    rows,preds = tables()
    a,b = analyze(rows, preds),analyze(rows, preds, baseline='item')
    assert a['diff'][2]==pytest.approx(-b['diff'][0]) and b.verdict[2]=='baseline' and a.p[2]==pytest.approx(b.p[0])

def test_order_of_rows_is_of_no_account():
    rows,preds = tables()
    a = analyze(rows, preds)
    b = analyze(rows.sample(frac=1, random_state=1), preds.sample(frac=1, random_state=2)).set_index('way').loc[a.way].reset_index()
    pd.testing.assert_frame_equal(a, b)

def test_tables_read_from_csv_give_the_same():
    rows,preds = tables()
    again = lambda df,**kw: pd.read_csv(io.StringIO(df.to_csv(index=False)), **kw)
    df = analyze(rows, preds)
    pd.testing.assert_frame_equal(analyze(again(rows), again(preds)), df)
    back = again(df)
    assert format_analysis(back)==format_analysis(df) and len(plot_analysis(back).get_yticks())==2

def test_one_pair_of_runs_establishes_nothing():
    rows,preds = tables(folds=1, seeds=1, clips=400, diff=.4, accuracy=.5)
    df = analyze(rows, preds)
    assert df.verdict[1:].eq('not established').all() and df.here[1:].eq('not established').all() and df[['p','p_holm','p_boot','diff_low']].isna().all(axis=None)
    assert 'another seed' in df.why[1] and 'more runs' in df.needs[1] and df.boot_low[1]>0
    format_analysis(df); plot_analysis(df)

def test_one_run_in_each_fold_claims_nothing_about_these_clips():
    df = analyze(*tables(folds=5, seeds=1, clips=400, diff=[.08,.3], accuracy=.5, seed=4))
    assert df.here[1:].eq('not established').all() and df.verdict[2]=='better' and 'clips alone' in df.why[2]

def test_one_split_says_what_was_not_tried():
    df = analyze(*tables(folds=1, seeds=5, clips=400, diff=.25, accuracy=.6))
    assert df.verdict[1]=='better' and 'no train set but these 1600 clips' in df.why[1]

def test_only_runs_of_both_are_compared():
    rows,preds = tables(folds=2, seeds=3, clips=60)
    gone = lambda d: d[~((d.way=='global')&(d.fold=='1')&(d.seed>0))]
    df = analyze(gone(rows), gone(preds))
    assert df.runs.tolist()==[6,4,6] and 'on the 4 runs that both have, of 4 and 6 of the baseline' in df.why[1] and df.why[2][:6]=='within'
    w,b = (rows[(rows.way==k)&~((rows.fold=='1')&(rows.seed>0))].sort_values(['fold','seed']).accuracy.to_numpy() for k in ('global','none'))
    assert df['diff'][1]==pytest.approx((w-b).mean()) and df.accuracy[1]==pytest.approx(w.mean())
    gone = lambda d: d[(d.way!='item')&((d.way=='none')==(d.fold=='1'))]
    df = analyze(gone(rows), gone(preds))
    assert df.set_index('way').runs['global']==0 and 'no pair' in df.set_index('way').why['global']
    format_analysis(df); plot_analysis(df)

def test_a_baseline_alone_and_equal_ways():
    rows,preds = tables()
    one = analyze(rows[rows.way=='none'], preds[preds.way=='none'])
    assert one.verdict.tolist()==['baseline']
    plot_analysis(one); format_analysis(one)
    twin = lambda d: pd.concat([d[d.way=='none'], d[d.way=='none'].assign(way='twin')])
    df = analyze(twin(rows), twin(preds))
    assert df.verdict[1]=='not established' and df.p_holm[1]==1 and df.needs[1]=='no difference was seen'

def test_recordings_widen_the_interval():
    rows,preds = tables(folds=2, clips=200, interaction=1.5)
    order = (preds.label==preds.predicted).groupby([preds.fold,preds.filename]).mean()
    preds['recording'] = preds.set_index(['fold','filename']).index.map(order.rank(method='first')//10)
    a,b = analyze(rows, preds),analyze(rows, preds, cluster='recording')
    assert (b.high-b.low>a.high-a.low).all() and b['diff'][1]==pytest.approx(a['diff'][1])

def test_text_is_a_hundred_columns_at_most():
    for kw in (dict(diff=[.4,-.4], accuracy=.5), dict(folds=1, seeds=2, clips=20), dict(folds=1, seeds=1, clips=20)):
        rows,preds = tables(**{**dict(clips=50), **kw})
        long = {'item':'a very long way+with another behind it'}
        text = format_analysis(analyze(rows.replace(long), preds.replace(long)))
        assert max(map(len, text.splitlines()))<=100 and 'a very long way+with another behind it: ' in text

@pytest.mark.parametrize('change,message', [
    (lambda r,p: (r.drop(columns='n_train'),p), "rows: expected columns .*without .'n_train'"),
    (lambda r,p: (r,p.drop(columns='predicted')), "preds: expected columns .*without .'predicted'"),
    (lambda r,p: (pd.concat([r,r[:1]]),p), "rows: expected each way, fold, seed once"),
    (lambda r,p: (r,pd.concat([p,p[:1]])), "preds: expected each way, fold, seed, filename once"),
    (lambda r,p: (r[1:],p), "preds: expected those of the runs in rows"),
    (lambda r,p: (r.assign(accuracy=r.accuracy+.01),p), "preds: expected the accuracies of rows"),
    (lambda r,p: (r,p.assign(fold='0').drop_duplicates(['way','seed','filename'])), "preds: expected those of the runs in rows"),
    (lambda r,p: (r.assign(accuracy=np.nan),p), "rows: expected no empty field, got one in column 'accuracy'"),
    (lambda r,p: (r[:0],p), "rows: expected rows, got none")])
def test_tables_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message): analyze(*change(*tables()))

def test_runs_on_other_clips_are_refused():
    rows,preds = tables(clips=40)
    less = preds[~((preds.way=='item')&(preds.filename=='5.wav'))]
    acc = (less.label==less.predicted).groupby([less.way,less.fold,less.seed]).mean()
    rows['accuracy'] = acc[pd.MultiIndex.from_frame(rows[['way','fold','seed']])].to_numpy()
    with pytest.raises(ValueError, match="same 8 clips from all runs of fold 0, got 7 from way 'item'"): analyze(rows, less)

def test_arguments_are_checked():
    rows,preds = tables()
    with pytest.raises(ValueError, match="baseline: expected one of .*'no'"): analyze(rows, preds, baseline='no')
    with pytest.raises(ValueError, match="level: "): analyze(rows, preds, level=95)
    with pytest.raises(TypeError, match="preds: expected a DataFrame, got None"): analyze(rows, None)
    with pytest.raises(ValueError, match="n_train: "): corrected_ttest([1,2], 0, 1)
    with pytest.raises(ValueError, match="p: "): holm([1.2])
    with pytest.raises(ValueError, match="accuracy: .*0.3"): simulate_experiment(diff=.3)
    with pytest.raises(ValueError, match="or NaN for all"): clip_bootstrap([[1,np.nan,0]])
    with pytest.raises(ValueError, match="two or more clips"): clip_bootstrap([[1],[0]])
    with pytest.raises(ValueError, match="fold: expected one for each of 3 clips"): clip_bootstrap([[1,0,1]], fold=[0,1])

def test_verdicts_are_drawn_in_shapes_that_differ_without_colour():
    ax = plot_analysis(analyze(*tables(clips=400, ways=4, diff=[.2,-.2,0], seed=1)))
    marks = [l.get_marker() for l in ax.lines if l.get_marker() in '^vo']
    assert sorted(marks)==['^','o','v'] and [t.get_text() for t in ax.get_yticklabels()]==['global','item','frequency']

def test_equal_differences_are_not_certain():
    "Two runs that differ alike say little where a clip is a step of a tenth"
    y = np.zeros((2,10)); y[:,:2] = 1
    t,_ = paired_tests(y, n_train=40)
    assert .05<t['p']<.5 and t['low']<.2<t['high']
    big = np.zeros((4,400)); big[:,:40] = 1
    assert paired_tests(big, n_train=1600)[0]['p']<.001

def test_few_clips_that_agree_are_no_surer_than_coins():
    for n in (1,2,4,8):
        y = np.zeros((3,20)); y[:,:n] = 1
        assert clip_bootstrap(y)['p']>=2*.5**n*.999
    rows,preds = simulated_tables(np.stack([np.zeros((3,2)), np.ones((3,2))]).astype(bool), np.zeros(2, dtype=int))
    assert analyze(rows, preds).verdict.tolist()==['baseline','not established']


def test_a_score_takes_the_place_of_right_or_wrong():
    rows = pd.DataFrame([dict(way=w, fold=f, seed=s, accuracy=.5, n_train=30) for w in ('a','b') for f in (1,2) for s in (0,1)])
    rng = np.random.default_rng(0)
    preds = pd.DataFrame([dict(way=r.way, fold=r.fold, seed=r.seed, filename=f'{r.fold}-{i}', label='x', predicted='x', change=-.2*(r.way=='b')+rng.normal(0, .02)) for r in rows.itertuples() for i in range(10)])
    a = analyze(rows, preds, 'a', score='change').set_index('way')
    assert abs(a.accuracy['a'])<.02 and abs(a.accuracy['b']+.2)<.02 and abs(a['diff']['b']+.2)<.02 and a.verdict['b']=='worse' and a.low['b']<-.15
    with pytest.raises(ValueError, match="score: expected values from -1 to 1 in column 'change'"): analyze(rows, preds.assign(change=2.), 'a', score='change')
    with pytest.raises(ValueError, match="score: expected values from -1 to 1 in column 'way', got 'a'"): analyze(rows, preds, 'a', score='way')
    for bad in ('',['change']):
        with pytest.raises(ValueError, match='score: expected the name of a column'): analyze(rows, preds, 'a', score=bad)

def _of(n, wrong, ways=('none',), seeds=(0,1), **cols):
    "Runs of `n` clips, of which the first `wrong` are wrong under each way"
    p = pd.DataFrame([dict(way=w, fold=1, seed=s, filename=str(i), label='a', predicted='b' if i<k else 'a', **{c:v(i) for c,v in cols.items()}) for w,k in zip(ways, wrong) for s in seeds for i in range(n)])
    return pd.DataFrame([dict(way=w, fold=1, seed=s, accuracy=1-k/n, n_train=100) for w,k in zip(ways, wrong) for s in seeds]),p

def test_one_mistake_is_no_surer_than_none():
    for n in (5,20,60):
        ends = [analyze(*_of(n, [k])).iloc[0][['low','high']].tolist() for k in range(n+1)]
        assert max(ends)[0]==ends[0][0] and min(h for _,h in ends)==ends[-1][1], n
    assert ends[0][1]==1 and ends[-1][0]==0

def test_differences_end_where_accuracies_do():
    r = analyze(*_of(3, [3,0], ('none','global'), (0,1,2))).iloc[1]
    assert r['diff']==1 and r.diff_high==1 and r.boot_high==1 and r.diff_low>=-1

def test_a_score_that_is_the_same_everywhere_has_no_interval():
    rows,preds = _of(20, [0,0], ('none','global'))
    r = analyze(rows, preds.assign(loss=np.where(preds.way=='none', 0, -.25)), score='loss')
    assert r.accuracy.tolist()==[0,-.25] and r[['low','high']].isna().all(None) and r.boot_low.isna().all() and r['diff'][1]==-.25
    assert 'nan' not in format_analysis(r).lower()
    preds['loss'] = np.linspace(-.1, .1, len(preds))
    assert analyze(rows, preds, score='loss')[['low','high']].notna().all(None)

def test_one_clip_tells_of_itself_alone():
    r = analyze(*_of(1, [0,1], ('none','global')))
    assert np.allclose(r.low, [.025,0]) and np.allclose(r.high, [1,.975]) and r.verdict.tolist()==['baseline','not established']
    assert r.why[1]=='one clip tells nothing of others' and r.needs[1]=='more clips: one tells nothing of others' and 'nan' not in format_analysis(r).lower()
    one = analyze(*_of(1, [0,1], ('none','global'), (0,)))
    assert one.why[1].startswith('one run of each')

@pytest.mark.parametrize('right', [True,False])
@pytest.mark.parametrize('cluster', [None,'rec'])
def test_all_right_is_not_certain(right, cluster):
    "The interval is the exact binomial one over clips, or over recordings"
    from scipy.stats import binomtest
    n = 60
    p = pd.DataFrame([dict(way='none', fold=f, seed=s, filename=f'{f}-{i}', label='a', predicted='a' if right else 'b', rec=f'{f}-{i//3}') for f in (1,2) for s in (0,1) for i in range(n)])
    rows = pd.DataFrame([dict(way='none', fold=f, seed=s, accuracy=float(right), n_train=100) for f in (1,2) for s in (0,1)])
    r = analyze(rows, p, cluster=cluster).iloc[0]
    m = 2*n if cluster is None else 2*n//3
    ci = binomtest(m if right else 0, m).proportion_ci(.95, 'exact')
    assert r.accuracy==right and np.allclose([r.low,r.high], ci)

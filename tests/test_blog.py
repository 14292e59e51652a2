"The published experiment's code runs"
import pandas as pd, pytest

@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('data,bs', [('synthetic',8),('esc10',6)])  # 64 and 30 train clips: no tail for the loader to drop
def test_the_published_code_runs(request, data, bs):
    import blog
    path = request.getfixturevalue(data)
    df = pd.read_csv(next((path/'meta').glob('*.csv')))
    blog.run(path, df.groupby(['fold','category']).head(1).reset_index(drop=True) if data=='esc10' else df, 1, bs)

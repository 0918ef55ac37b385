"""Your own CSV of numbers: learn the density of its columns, and infer some from the others.

    python examples/05_your_own_data.py data.csv --given age=40 weight=90 [--columns ...] [--quick]

Without a file it writes one, `people.csv`, and shows the job on that. The file's first line names
its columns. What was learned is saved, for `numpyro_score.load`, and so are draws, for ArviZ.
"""

import argparse

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from csv_columns import Table, parse_given, read_table, write_people
from your_own_data_figure import save_figure

import numpyro_score
from numpyro_score.diagnostics import check, report, to_arviz
from numpyro_score.distributions import EnergyDistribution
from numpyro_score.infer import MALA, MCMC
from numpyro_score.networks import EnergyMLP
from numpyro_score.objectives import DenoisingScoreMatching
from numpyro_score.training import fit

GRAIN = 0.1  # the density is that of rows with this much noise, in standard deviations of a column


def learn(table: Table, num_steps: int):
    """Fit an energy to the columns, each in units of its sd; a fifth of the rows is held out."""
    rows = np.asarray((table.rows - table.rows.mean(0)) / table.rows.std(0), np.float32)
    rows = np.random.default_rng(0).permutation(rows)
    held_out, rows = np.split(rows, [len(rows) // 5])
    network = EnergyMLP(len(table.names), columns=table.names, key=jax.random.key(0))
    objective = DenoisingScoreMatching(noise_scale=GRAIN, control_variate=True)
    options = {"num_steps": num_steps, "batch_size": min(256, len(rows) // 2)}
    result = fit(jax.random.key(1), network, rows, objective, **options)
    held_out = held_out + GRAIN * jax.random.normal(jax.random.key(3), held_out.shape)
    return rows, held_out, result


def condition(prior: EnergyDistribution, table: Table, given: dict[str, float]):
    """The model of the columns that are not given: the same energy, at the values that are."""
    mean, sd = table.rows.mean(0), table.rows.std(0)
    known = np.array([table.names.index(name) for name in given], int)
    unknown = np.array([i for i, name in enumerate(table.names) if name not in given])
    values = (np.array(list(given.values())) - mean[known]) / sd[known]
    row = jnp.zeros(len(mean)).at[known].set(values)
    energy = prior.network

    def model():
        rest = EnergyDistribution(lambda u: energy(row.at[unknown].set(u)), (len(unknown),))
        z = numpyro.sample("z", rest)
        for k, i in enumerate(unknown):
            numpyro.deterministic(table.names[i], mean[i] + sd[i] * z[k])

    return model, unknown


def infer(model, starts, num_draws: int) -> MCMC:
    """Draw by four chains, each of which starts at a row of the data."""
    options = {"num_chains": 4, "chain_method": "vectorized"}
    options |= {"num_warmup": num_draws // 2, "num_samples": num_draws}
    mcmc = MCMC(MALA(model, dense_mass=True), **options)
    fields = ("accept_prob", "potential_energy")
    mcmc.run(jax.random.key(2), init_params={"z": starts}, extra_fields=fields)
    return mcmc


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file", nargs="?", help="a CSV file; without it, one is written")
    parser.add_argument("--columns", nargs="+", help="which to learn from; all by default")
    parser.add_argument("--given", nargs="+", default=[], metavar="COLUMN=NUMBER")
    parser.add_argument("--quick", action="store_true", help="a rehearsal")
    options = parser.parse_args()
    if options.file is None:
        options.file, options.given = "people.csv", options.given or ["age=40", "weight=90"]
        write_people(options.file)
    try:
        table = read_table(options.file, options.columns)
        given = parse_given(options.given, table)
        print("\n".join(table.story))
        rows, held_out, result = learn(table, 200 if options.quick else 3_000)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    result.print_summary()
    prior = EnergyDistribution(result.network, (len(table.names),))
    check(prior, held_out)
    model, unknown = condition(prior, table, given)
    starts = rows[:: len(rows) // 4][:4, unknown]
    mcmc = infer(model, starts, 200 if options.quick else 4_000)
    names = [table.names[i] for i in unknown]
    report(mcmc)
    posterior = to_arviz(mcmc)
    print(az.summary(posterior, var_names=names).to_string())
    draws = {name: np.asarray(mcmc.get_samples()[name]) for name in names}
    told = ", ".join(f"{name} = {value:g}" for name, value in given.items()) or "nothing"
    print(f"\ngiven {told}, with 90 % intervals:")
    for name, values in draws.items():
        low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
        print(f"{name:>12}  {middle:.4g}, from {low:.4g} to {high:.4g}")
    numpyro_score.save("your_own_data.npz", prior)
    posterior.to_netcdf("your_own_data.nc")
    save_figure("your_own_data.png", result, table, draws)
    print("wrote your_own_data.npz (the density), .nc (the draws) and .png")


if __name__ == "__main__":
    main()

"""The program that a MOSEK task states, read from the task alone and rebuilt in CVXPY for another solver."""

import cvxpy as cp
import numpy as np
import scipy.sparse as sp


def rebuilt(path):
    """(maximise?) a'x + <C, X> subject to the task's rows, bounds, cones and matrix variables; needs no licence."""
    import mosek

    with mosek.Task() as task:
        task.readdata(str(path))
        rows, columns = task.getnumcon(), task.getnumvar()
        x = cp.Variable(columns)
        orders = [task.getdimbarvarj(j) for j in range(task.getnumbarvar())]
        X = [cp.Variable((n, n), PSD=True) for n in orders]
        c = np.zeros(columns)
        task.getc(c)
        objective = c @ x + task.getcfix()
        subi, subj, value = (np.asarray(part) for part in task.getatrip())
        image = sp.csr_array((value, (subi, subj)), shape=(rows, columns)) @ x
        if orders:
            objective = objective + sum(cp.trace(C @ V) for C, V in zip(_c_bar(task, orders), X, strict=True))
            image = image + _a_bar(task, orders, rows, X)
        constraints = [
            *_bounds(mosek, task.getconboundslice(0, rows), image),
            *_bounds(mosek, task.getvarboundslice(0, columns), x),
            *_cones(mosek, task, x),
        ]
        maximise = task.getobjsense() == mosek.objsense.maximize
        return cp.Problem((cp.Maximize if maximise else cp.Minimize)(objective), constraints)


def _bounds(mosek, bounds, expression):
    kinds, lower = (np.asarray(part) for part in bounds[:2])
    at = {key: np.flatnonzero([kind == key for kind in kinds]) for key in (mosek.boundkey.fx, mosek.boundkey.lo)}
    free = sum(kind == mosek.boundkey.fr for kind in kinds)
    assert free + sum(len(index) for index in at.values()) == len(kinds), "a kind of bound that is not read here"
    fixed, low = at[mosek.boundkey.fx], at[mosek.boundkey.lo]
    constraints = []
    if len(fixed):
        constraints.append(expression[fixed] == lower[fixed])
    if len(low):
        constraints.append(expression[low] >= lower[low])
    return constraints


def _cones(mosek, task, x):
    constraints, exponential = [], []
    for i in range(task.getnumcone()):
        members = np.zeros(task.getconeinfo(i)[2], dtype=np.int32)
        kind = task.getcone(i, members)[0]
        if kind == mosek.conetype.quad:
            constraints.append(cp.SOC(x[members[0]], x[members[1:]]))
        else:
            assert kind == mosek.conetype.dexp, kind
            exponential.append(members)
    if exponential:
        # MOSEK's dual exponential cone is s1 >= -s3 exp(s2 / s3 - 1), s3 <= 0 <= s1; CVXPY's ExpCone y exp(x / y) <= z
        s1, s2, s3 = (x[members] for members in np.array(exponential).T)
        constraints.append(cp.ExpCone(s3 - s2, -s3, s1))
    return constraints


def _c_bar(task, orders):
    """The symmetric coefficient of every matrix variable in the objective."""
    j, row, column, value = (np.asarray(part) for part in task.getbarcblocktriplet()[1:])
    matrices = []
    for index, n in enumerate(orders):
        own = j == index
        lower = sp.coo_array((value[own], (row[own], column[own])), shape=(n, n)).toarray()
        matrices.append(lower + np.tril(lower, -1).T)
    return matrices


def _a_bar(task, orders, rows, X):
    """sum_j <A_ij, X_j> for every row i; the task holds lower triangles, which stand for both halves."""
    i, j, row, column, value = (np.asarray(part) for part in task.getbarablocktriplet()[1:])
    value = np.where(row == column, 1.0, 2.0) * value
    total = np.zeros(rows)
    for index, n in enumerate(orders):
        own = j == index
        matrix = sp.csr_array((value[own], (i[own], row[own] * n + column[own])), shape=(rows, n * n))
        total = total + matrix @ cp.vec(X[index], order="C")
    return total

#!/usr/bin/env python3
# fmt: off
"""Verify a proof about the training of a two-layer network, in exact arithmetic, with nothing but Python 3.11:
    python verify_proof.py PROOF.json.gz PROBLEM.npz|DATA.csv
THE PROGRAM is min F(sum_k C(D_k Phi Z_k)) + beta sum_k ||Z_k||_k. Phi holds the rows of the first layer, the 0/1 mask
D_k states which of them are active in block k, C is the second layer, and F sums a convex loss over the outputs.
||Z||_k is the least sum of ||u|| ||v|| over all ways to write Z as a sum of neurons u v^T; for ReLU each u lies in the
cone K_k u >= 0, K_k = (2 D_k - I) Phi. Over all masks it is the training of a ReLU network of any width with weight
decay beta/2 (||W1||^2 + ||W2||^2). THE THEOREM (weak duality): let Lambda have the shape of the outputs,
R = C^*(Lambda) and G_k = Phi^T D_k R. If ||G_k^T u|| <= beta ||u|| for every u that block k allows, no point has an
objective below -F^*(Lambda). A proof holds Lambda, witnesses of these inequalities, and a point. All numbers are
integers and their ratios. Logarithms and exponentials are correctly rounded decimals, moved outwards by one unit."""
import ast, csv, gzip, hashlib, json, sys, zipfile
from array import array
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from itertools import chain, combinations, compress, product
from math import ceil, inf, lcm, prod
UP, GRID = Context(50, ROUND_CEILING, -9999, 9999), 1 << 400  # decimals of 50 digits, and a grid for sums
KEYS = "architecture activation loss beta seed classes notes X Y masks gates held_out moved copies patterns".split()
PARAMETERS = {"cnn": {"patch", "stride", "padding", "bias", "pool"}, "attention": {"output"}, "huber": {"delta"},
              "with output bias": {"loss", "beta"}, "with sample weights": {"loss", "weights"}}
def require(holds, statement):
    if not holds: raise ValueError(statement)
# -- 1. Exact arithmetic -----------------------------------------------------------------------------------------------
def integers(values):
    """Return (integers, unit) with values = integers / unit exactly, for floats."""
    ratios = [float(value).as_integer_ratio() for value in values]
    unit = max(below for _, below in ratios)  # every one of them is a power of two
    return [above * (unit // below) for above, below in ratios], unit
def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))
def is_psd(A):
    """Decide whether a symmetric integer matrix is positive semidefinite, by an exact LDL^T."""
    A, last = [list(row) for row in A], 1
    for k, row in enumerate(A):
        if row[k] < 0 or (row[k] == 0 and any(row[k:])): return False
        for i in range(k + 1, len(A) if row[k] else 0):  # Bareiss: entries are minors of A, and no division has a rest
            A[i][i:] = [(a * row[k] - row[i] * b) // last for a, b in zip(A[i][i:], row[i:])]
        last = row[k] or last
    return True
def pack(values, width):
    """Return sum_i values[i] 256^(width i), so that sums and products of vectors are those of one large integer."""
    half = 1 << (8 * width - 1)
    raw = b"".join([(value + half).to_bytes(width, "little") for value in values])
    return int.from_bytes(raw, "little") - half * ((256 ** len(raw) - 1) // (256**width - 1))
def unpack(packed, width, count):
    half, size = 1 << (8 * width - 1), width * count
    raw = (packed + half * ((256**size - 1) // (256**width - 1))).to_bytes(size, "little")
    return [int.from_bytes(raw[i : i + width], "little") - half for i in range(0, size, width)]
def bytes_for(count, *tables):
    """Return enough bytes for a sum of so many products of entries of all tables, with its sign."""
    return (count * prod(max(abs(x) for row in table for x in row) + 1 for table in tables)).bit_length() // 8 + 2
def above(function, x):
    """Return a rational above function(x), which is UP.ln or UP.exp, for a rational x."""
    return Fraction(UP.next_plus(function(UP.divide(Decimal(x.numerator), Decimal(x.denominator)))))
def total_above(terms):
    return Fraction(sum(ceil(term * GRID) for term in terms), GRID)
# -- 2. The problem ----------------------------------------------------------------------------------------------------
def number(stated):
    require(type(stated) is int or repr(float(stated)) == stated, "numbers are stated as Python writes them")
    return Fraction(stated if type(stated) is int else float(stated))
def read_member(raw):
    """Return (shape, values) of an array in NumPy's .npy format."""
    end = 10 + int.from_bytes(raw[8:10], "little")
    head = ast.literal_eval(raw[10:end].decode("latin1"))
    if head["descr"][:2] == "<U": return (), raw[end:].decode("utf-32-le").rstrip("\0")
    values = array({"<f8": "d", "<f4": "f", "|b1": "b"}[head["descr"]], raw[end:])
    require((len(values), head["fortran_order"], raw[6]) == (prod(head["shape"]), False, 1), "arrays are in C order")
    return head["shape"], values
def read_npz(path):
    """Return (header, arrays) of a problem file in NumPy's .npz format."""
    with zipfile.ZipFile(path) as file:
        members = [(name.removesuffix(".npy"), read_member(file.read(name))) for name in file.namelist()]
    head, arrays = json.loads(dict(members)["header"][1], parse_float=str, parse_constant=str), dict(members)
    require((head.pop("format"), head.pop("version")) == ("convexnn-bench problem", 1), "PROBLEM is a problem")
    require((len(arrays), sys.byteorder) == (len(members), "little"), "every array is there once")
    return head, arrays
def read_csv(path, stated):
    """Return (header, arrays) of the samples of an MLP, in columns x0 x1 ... y0 ... mask0 ... weight0."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        names, *rows = csv.reader(file)
    kinds, arrays = [name.rstrip("0123456789") for name in names], {"mask": ((len(rows), 1), [1.0] * len(rows))}
    order = [f"{kind}{i}" for kind in ("x", "y", "mask", "weight") for i in range(kinds.count(kind))]
    require(names == order and set(map(len, rows)) == {len(names)}, "columns are x0 ... y0 ... mask0 ... weight0")
    arrays |= {kind: ((len(rows), kinds.count(kind)), array("d", [float(cell) for row in rows for cell, column in
                      zip(row, kinds) if column == kind])) for kind in set(kinds)}
    return {**stated, "X": {"array": "x"}, "Y": {"array": "y"}, "masks": {"array": "mask"}}, arrays
class Problem:
    """The problem of an .npz file, or a stated one on the data of a .csv file. phi[r] is row r of Phi, which belongs to
    output out[r], and C(M)[o, j] is the sum of w[r][a] M[r, a c + j] over a and over the rows r of output o. A product
    of a phi and a w is in units of 1/unit."""
    def __init__(self, path, stated):
        table = str(path).endswith(".csv")
        head, self.arrays = read_csv(path, stated) if table else read_npz(path)
        require({name for name in head if head[name] is not None} <= set(KEYS), "all fields of the problem are known")
        self.about, self.beta, self.bias = {name: head[name] for name in KEYS[:4]}, number(head["beta"]), None
        self.X, ((n_out, self.c), Y), ((rows, self.P), masks) = (self[head[name]] for name in ("X", "Y", "masks"))
        self.Y = [list(map(Fraction, Y[i : i + self.c])) for i in range(0, len(Y), self.c)]
        self.weights, loss, parts = [Fraction(1)] * n_out, head["loss"], [head["architecture"], head["activation"]]
        if loss["name"] == "with output bias":  # `beta` is the factor of its decay
            self.bias, parts, loss = number(loss["parameters"]["beta"] or 0), [*parts, loss], loss["parameters"]["loss"]
        if loss["name"] == "with sample weights":
            w = self.arrays.pop("weight")[1] if table else self[loss["parameters"]["weights"]][1]
            self.weights, parts, loss = list(map(Fraction, w)), [*parts, loss], loss["parameters"]["loss"]
        known = all(set(part["parameters"]) == PARAMETERS.get(part["name"], set()) for part in [*parts, loss])
        require(known and "weight" not in self.arrays and set(masks) <= {0, 1}, "parameters are known, masks 0 or 1")
        self.loss, self.activation, self.masks = loss["name"], head["activation"]["name"], array("b", map(int, masks))
        self.delta = number(loss["parameters"]["delta"]) if self.loss == "huber" else inf
        self.maps(*self.X, **head["architecture"])
        self.N, self.p, self.q = len(self.phi), len(self.phi[0]), len(self.w[0]) * self.c
        require(rows == self.N and self.out[-1] + 1 == n_out == len(self.weights), "the arrays fit together")
        require(self.beta > 0 and min(self.weights) >= 0 and (self.bias or 0) >= 0, "beta > 0, and weights >= 0")
        require({"linear": all(self.masks), "gated_relu": 1, "relu": 1}[self.activation], "all rows are active")
        kind = {"squared": 0, "huber": 0, "cross_entropy": 1, "logistic": 2, "squared_hinge": 2}[self.loss]
        require(all((True, y >= 0, abs(y) == 1)[kind] for y in chain(*self.Y)), f"Y are targets of {self.loss}")
    def __getitem__(self, stated):
        return self.arrays[stated["array"]]  # sparse arrays are stated otherwise
    def maps(self, shape, values, name, parameters):
        (x, self.unit), n = integers(values), shape[0]
        if name == "mlp":
            self.phi, self.w, self.out = [x[i : i + shape[1]] for i in range(0, len(x), shape[1])], [[1]] * n, range(n)
        elif name == "attention":
            s, d = shape[1:]
            tokens, mean = [x[i : i + d] for i in range(0, len(x), d)], parameters["output"] == "mean"
            pairs = [(a, t) for a in range(n * s) for t in range(a // s * s, a // s * s + s)]
            self.phi = [[u * v for u in tokens[a] for v in tokens[t]] for a, t in pairs]
            self.w, self.out = [tokens[t] for _, t in pairs], [a // s if mean else a for a, _ in pairs]
            self.unit = self.unit**3 * (s if mean else 1)
        elif name == "cnn":
            k, step, edge, bias, pool = (parameters[name] for name in ("patch", "stride", "padding", "bias", "pool"))
            pixels, axes = dict(zip(product(*map(range, shape)), x)), list(product(range(shape[1]), range(k), range(k)))
            grid = [range(-edge, side + edge - k + 1, step) for side in shape[2:]]
            self.phi = [[pixels.get((i, c, y + a, z + b), 0) for c, a, b in axes] + [self.unit] * bias
                        for i in range(n) for y in grid[0] for z in grid[1]]
            sides = [len(axis) for axis in grid]
            if isinstance(pool, dict):
                columns = [list(map(Fraction, self[pool][1][t :: prod(sides)])) for t in range(prod(sides))]
            else:  # windows, as those of AdaptiveAvgPool2d; "identity" has one for every patch
                down, across = ([[Fraction(i * L // g <= t < -(-(i + 1) * L // g), -(-(i + 1) * L // g) - i * L // g)
                                  for i in range(g)] for t in range(L)]
                                for L in sides for g in [{"global": 1, "identity": L}.get(pool, pool)])
                columns = [[u * v for u in a for v in b] for a in down for b in across]
            scale = lcm(*(value.denominator for column in columns for value in column))
            self.w, self.unit = [[int(x * scale) for x in column] for column in columns] * n, self.unit * scale
            self.out = [i for i in range(n) for _ in columns]
    def hash(self, with_masks):
        arrays = [array("d", map(float, values)) for values in (self.X[1], chain(*self.Y), self.weights)]
        return hashlib.sha256(b"".join(arrays + [self.masks] * with_masks)).hexdigest()
    def terms(self, values, factor=1):
        """Yield (values, targets, weight) of rows or entries. The logistic loss is cross-entropy of (y z, -y z) / 2."""
        for row, Y, w in zip(values, self.Y, self.weights, strict=True):
            if self.loss == "cross_entropy": yield row, Y, w
            for a, y in zip(row, Y) if self.loss != "cross_entropy" else ():
                yield ([y * a * factor, -y * a * factor], [1, 0], w) if self.loss == "logistic" else ([a], [y], w)
    def conjugate_above(self, Lambda):
        """Yield upper bounds on the terms of F^*(Lambda), with F = sum_i w_i f(z_i, y_i)."""
        for L, Y, w in self.terms(Lambda):
            require(w or not any(L), "Lambda is zero in rows of weight zero")
            if self.loss in ("cross_entropy", "logistic"):  # f = sum_j y_j (log sum_k exp(z_k) - z_j)
                P = [a + w * y for a, y in zip(L, Y)]
                require(sum(L) == 0 <= min(P) and sum(Y) > 0, "rows of Lambda + Y are in the simplex")
                yield sum(a * above(UP.ln, a / (w * sum(Y))) for a in P if a)
            elif w:  # f = h (r - h/2), where h is the residual r cut off at delta
                (a,), (y,) = L, Y
                require(-y * a >= 0 if self.loss == "squared_hinge" else abs(a) <= w * self.delta, "in the domain")
                yield a * a / (2 * w) + a * y
        if self.bias is not None:  # F is min over b of F(z + b) + bias/2 ||b||^2
            totals = list(map(sum, zip(*Lambda)))
            require(self.bias or not any(totals), "columns of Lambda sum to zero")
            yield sum(t * t for t in totals) / (2 * self.bias) if self.bias else 0
    def loss_above(self, Z):
        """Yield upper bounds on the terms of F(Z)."""
        for z, Y, w in self.terms(Z, Fraction(1, 2)):
            if self.loss in ("cross_entropy", "logistic"):
                yield w * (sum(Y) * (max(z) + above(UP.ln, sum(above(UP.exp, a - max(z)) for a in z))) - dot(z, Y))
            else:
                r = max(1 - Y[0] * z[0], 0) if self.loss == "squared_hinge" else z[0] - Y[0]
                h = min(max(r, -self.delta), self.delta)
                yield w * h * (r - h / 2)
    def objective_above(self, bits, first, second, blocks, bias, every_mask):
        """Return an upper bound on the objective of neurons u v^T, with u and v in `first` and `second`."""
        known = len(bias) == self.c and (self.bias is not None or not any(bias))
        require(known and all(0 <= k < self.P for k in blocks), "neurons and bias are those of the problem")
        w, unit, Z = bytes_for(self.p, self.phi, first), 1 << bits, [[0] * self.c for _ in self.Y]
        columns, weights = [pack(column, w) for column in zip(*first)], list(zip(*second))
        for r, (phi, o) in enumerate(zip(self.phi, self.out)):
            h = unpack(dot(phi, columns), w, len(first))
            on = [x > 0 if every_mask else self.masks[r * self.P + k] for k, x in zip(blocks, h, strict=True)]
            require(self.activation != "relu" or all((x >= 0, x <= 0)[not s] for x, s in zip(h, on)), "in their cones")
            m = [sum(compress(map(int.__mul__, h, v), on)) for v in weights]
            Z[o] = [z + dot(self.w[r], m[j :: self.c]) for j, z in enumerate(Z[o])]
        Z = [[Fraction(z, self.unit * unit**2) + Fraction(b, unit) for z, b in zip(row, bias)] for row in Z]
        decay = self.beta * sum(dot(x, x) for x in first + second) + (self.bias or 0) * dot(bias, bias)
        return total_above(chain(self.loss_above(Z), [decay / (2 * unit**2)]))
# -- 3. The dual norms -------------------------------------------------------------------------------------------------
class Norms:
    """||G^T u|| <= beta ||u|| for integer matrices G, once Lambda is known: low ||G^T u||^2 <= top ||u||^2."""
    def __init__(self, problem, Lambda, unit):
        self.of, self.Lambda, limit, q = problem, Lambda, problem.beta * problem.unit * unit, problem.q
        self.top, self.low = limit.numerator**2, limit.denominator**2
        self.width = w = bytes_for(problem.N, problem.phi, problem.w, Lambda)
        self.products = [pack(phi, w * q) * pack(weights, w * problem.c) * pack(Lambda[o], w)
                         for phi, weights, o in zip(problem.phi, problem.w, problem.out, strict=True)]
    def G(self, mask):
        """Return Phi^T D R as rows, for the mask D."""
        entries = unpack(sum(compress(self.products, mask)), self.width, self.of.p * self.of.q)
        return [entries[i : i + self.of.q] for i in range(0, len(entries), self.of.q)]
    def holds(self, G, terms=()):
        """Decide whether low G G^T + sum of t (a b^T + b a^T) over the terms (t, a, b) is at most top I."""
        if not terms and self.low * sum(dot(row, row) for row in G) <= self.top: return True  # the Frobenius norm
        G = list(zip(*G)) if not terms and len(G[0]) < len(G) else G  # G^T G has the same largest eigenvalue
        A = [[self.top * (i == j) - self.low * dot(a, b) for j, b in enumerate(G)] for i, a in enumerate(G)]
        for t, a, b in terms:
            A = [[x - t * (a[i] * b[j] + b[i] * a[j]) for j, x in enumerate(row)] for i, row in enumerate(A)]
        return is_psd(A)
    def block(self, k, mask, witness):
        G, what = self.G(mask), f"||G_k^T u|| <= beta ||u|| in block {k}"
        if witness is None or self.of.activation != "relu": return require(self.holds(G), what)
        K, bits = [row if on else [-x for x in row] for row, on in zip(self.of.phi, mask)], witness["bits"]
        require(all(term[-1] >= 0 for name in ("plus", "minus", "pairs") for term in witness[name]), "multipliers >= 0")
        if self.of.q > 1:  # (K u)^T N (K u) >= 0 for N >= 0 and u in the cone
            return require(self.holds(G, [(n << bits, K[i], K[j]) for i, j, n in witness["pairs"]]), what)
        for sign, multipliers in ((1, witness["plus"]), (-1, witness["minus"])):
            g = [sign * x + sum(l * K[i][j] << bits for i, l in multipliers) for j, (x,) in enumerate(G)]
            require(self.low * dot(g, g) <= self.top, what)  # g^T u <= (g + K^T l)^T u for l >= 0
    def plane(self):
        """Check the cones between neighbouring rays s a + t b, s, t >= 0, at which rows of two features change sign."""
        turned = [(-y, x) for x, y in self.of.phi if x or y] + [(1, 0), (0, 1)]
        rays = {((y, x) < (0, 0), y != 0, Fraction(-x, y) if y else 0): (x, y)  # in the order of their angles
                for x, y in turned + [(-x, -y) for x, y in turned]}
        around = [rays[angle] for angle in sorted(rays)]
        for a, b in zip(around, around[1:] + around[:1]):
            G = self.G([dot(row, a) + dot(row, b) > 0 for row in self.of.phi])
            aa, ab, bb = (self.top * dot(u, v) - self.low * sum(dot(col, u) * dot(col, v) for col in zip(*G))
                          for u, v in ((a, a), (a, b), (b, b)))
            require(aa >= 0 <= bb and (ab >= 0 or ab * ab <= aa * bb), f"||G^T u|| <= beta ||u|| between {a} and {b}")
    def rule(self, planes):
        """Check ||R^T (Phi u)_+|| <= beta ||u||, in orthogonal lines and planes that hold all rows of R."""
        R = [[a * b for a in w for b in self.Lambda[o]] for w, o in zip(self.of.w, self.of.out)]
        basis, total = [b for plane in planes for b in plane["basis"]], 0
        require(all(dot(a, b) == 0 for a, b in combinations(basis, 2)), "the planes are orthogonal")
        require(all(sum(Fraction(dot(r, b) ** 2, dot(b, b)) for b in basis) == dot(r, r) for r in R), "planes hold R")
        for plane in planes:  # z = R^T (Phi u)_+ lies in a polygon v^T z <= t, whose neighbouring sides meet in corners
            sides = [(t["along"], [dot(t["along"], x) for x in zip(*plane["basis"])], t) for t in plane["tangents"]]
            radii, lines = [], {1: True, 2: False}[len(plane["basis"])]
            for (c, v, s), (d, w, t) in zip(sides, sides[1:] + sides[:1]):
                self.tangent([dot(r, v) for r in R], **s)
                s, t, vv, vw, ww = s["reach"], t["reach"], dot(v, v), dot(v, w), dot(w, w)
                require(c[0] * d[0] < 0 if lines else c[0] * d[1] > c[1] * d[0], "the tangents go around")
                radii.append(Fraction(s * s, vv) if lines else
                             Fraction(s * s * ww - 2 * s * t * vw + t * t * vv, vv * ww - vw * vw))
            total += max(radii)
        require(self.low * total <= self.top, "||R^T (Phi u)_+|| <= beta ||u||")
    def tangent(self, h, along, reach, bits, inverse, negative, constant, slopes):
        """Check sum_r h_r (phi_r u)_+ <= reach ||u||. With a = h phi where h > 0 and b = -h phi where h < 0 it is the
        largest over d, and the least over e, in [0, 1] of sum_i d_i a_i u - sum_j e_j b_j u. Here e is affine in d, and
        ||sum_i s_i w_i||^2 <= sum_i t_i lambda_max(sum_i w_i w_i^T / t_i) for all signs s and all t > 0."""
        one, p, B = 1 << bits, range(self.of.p), [[0] * self.of.p for _ in constant]
        a, b = ([[abs(s) * x for x in row] for row, s in zip(self.of.phi, h) if s * side > 0] for side in (1, -1))
        for k, row in zip(negative, b, strict=True): B[k] = list(map(int.__add__, B[k], row))  # a group has one e
        ends = [(e + sum(s for s in column if s < 0), e + sum(s for s in column if s > 0))
                for e, *column in zip(constant, *slopes, strict=True)]
        require(all(0 <= low <= high <= one for low, high in ends), "the affine rule stays in [0, 1]")
        W = [[one * x - dot(row, column) for x, column in zip(r, zip(*B))] for r, row in zip(a, slopes, strict=True)]
        W.append([sum(row[j] for row in W) - 2 * dot(constant, [row[j] for row in B]) for j in p])
        A = [[sum(map(prod, zip(inverse, u, v, strict=True))) for v in zip(*W)] for u in zip(*W)]
        t = sum(-(-(one**3) // e) for e in inverse)  # at least one^3 times the sum of t_i = 1 / e_i
        A = [[4 * one**5 * reach**2 * (i == j) - t * x for j, x in enumerate(row)] for i, row in enumerate(A)]
        require(reach >= 0 < min(inverse) and is_psd(A), f"sum_r h_r (phi_r u)_+ <= reach ||u|| along {along}")
# -- 4. The statement --------------------------------------------------------------------------------------------------
def verify(proof, of):
    """Return the statement of a proof about the problem `of`. Raise an exception if something does not hold."""
    require((proof["schema"], proof["version"]) == ("convexnn-bench proof", 1), "the file holds a proof of version 1")
    require(proof["problem"] == of.about, "the proof is about this problem")
    listed, every = (proof["masks"] in names for names in (("listed",), ("plane", "rule")))
    require(listed or (every and of.activation == "relu"), "a proof over all masks is about ReLU")
    require(proof["sha256"] == of.hash(listed), "the proof is about these arrays")
    scale, bits, rows = (proof["multiplier"][name] for name in ("scale", "bits", "rows"))  # 1. The multiplier.
    L = [[scale * x for x in row + [-sum(row)] * (of.loss == "cross_entropy")] for row in rows]
    require(len(L) == len(of.Y) and all(len(row) == of.c for row in L), "the multiplier has the shape of Y")
    conjugate = total_above(of.conjugate_above([[Fraction(x, 1 << bits) for x in row] for row in L]))
    require(conjugate <= -Fraction(proof["bound"]), "-F^*(Lambda) >= bound")
    norms = Norms(of, L, 1 << bits)  # 2. The inequality of every block.
    for k in range(of.P if listed else 0): norms.block(k, of.masks[k :: of.P], proof["witnesses"].get(str(k)))
    if every: norms.plane() if proof["masks"] == "plane" else norms.rule(proof["witnesses"])
    who = "ReLU network of any width" if every else f"point over the {of.P} masks of the problem"  # 3. The point.
    words = f"VERIFIED: no {who} has an objective below\n  {proof['bound']}\n"
    if (proof["primal"], proof["gap"], proof["point"]) != (None, None, None):
        bound, primal, gap = (Fraction(proof[name]) for name in ("bound", "primal", "gap"))
        require(of.objective_above(**proof["point"], every_mask=every) <= primal, "objective of the point <= primal")
        require(primal - bound <= gap * abs(bound), "primal - bound <= gap |bound|")
        words += f"and that of the point is at most\n  {proof['primal']}\nThe relative gap is at most {proof['gap']}.\n"
    return f"{words}Problem: {json.dumps(of.about)}, {len(of.Y)} x {of.c} outputs, {of.N} rows of {of.p} features.\n"
if __name__ == "__main__":
    try:
        with gzip.open(sys.argv[1], "rt", encoding="utf-8") as file:  # a proof holds no number that is not an integer
            proof = json.load(file, parse_float=str, parse_constant=str)
        print(verify(proof, Problem(sys.argv[2], proof["problem"])), end="")
    except Exception as error: sys.exit(f"NOT VERIFIED. This does not hold: {error or type(error).__name__}")

def difference(f, x, index, h):
    here = x[index]
    x[index] = here + h
    up = f(x)
    x[index] = here - h
    down = f(x)
    x[index] = here
    return (up - down) / (2 * h)                                # (1)

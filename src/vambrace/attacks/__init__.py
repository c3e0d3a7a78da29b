from vambrace.attacks.gradient import FGSM, PGD

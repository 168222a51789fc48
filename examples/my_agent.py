from secateur import Agent, generate, keep_best, score
from secateur.agents.ready.digits import parse_digits, sorting_errors


def errors(scene):
    return sorting_errors(parse_digits(scene.task), parse_digits(scene.text))


plan = generate("sort {task}\n", n=5) >> score(errors) >> keep_best(1, lowest=True)
agent = Agent("my-sort", plan=plan, policy="prune")

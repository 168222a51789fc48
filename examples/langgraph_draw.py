"""Draw an agent's graph as Mermaid."""

from secateur import Agent
from secateur.agents.ready.sort import sort

agent = Agent.of(sort)

if __name__ == "__main__":
    print(agent.graph().get_graph().draw_mermaid())

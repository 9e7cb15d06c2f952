"""English words that carry no claim of their own, and those that deny one."""

from __future__ import annotations

_FUNCTION_WORDS = """
a an the and or but nor so yet of in on at by for from to with within into onto over under up down out off
about  as is are was were be been being am do does did done doing has have had having can could will would
shall should  may might must it its itself they them their theirs he him his she her hers we us our you your i
me my this that  these those there here who whom whose which what when where why how if then than also too
very just only some any  each every all more most other another such same own while during near next beside
behind front between through  around along against above below across after before again once because until
not no yes never none without both  s t d ll re ve m nt im ive youre theyre isnt arent dont doesnt didnt wasnt
werent cant wont s' one ones  appears appear appearing seems seem seeming seen see visible currently likely
possibly perhaps probably maybe  several many few lot lots much
"""
# What answers and questions say about the evidence itself, and verbs that add nothing to their object.
_TALK_WORDS = """
image images photo photos photograph photographs picture pictures pic shot scene view shows show showing shown
depicts depict depicted depicting features featuring contains contain containing displays display caption
captions  captioned describes described describe description evidence source sources item items passage
passages text  according based mentions mentioned mention states stated collection answer answers question
given provided  following result results tell say says said find found search look looking please there's
thing things something  anything anyone someone kind type sort happening happen happens going describe know
example examples  include includes including present located like made make makes making taken take takes
taking use uses used using wear wears wearing wore worn
"""
_NEGATIONS = """
not no never none neither nor without nobody nothing nowhere cannot cant isnt arent wasnt werent doesnt dont
didnt hasnt havent hadnt wont wouldnt shouldnt couldnt
"""

#: Words that are not compared.
STOP_WORDS = frozenset((_FUNCTION_WORDS + _TALK_WORDS).split())
#: Words that deny what follows, without their apostrophes.
NEGATORS = frozenset(_NEGATIONS.split())

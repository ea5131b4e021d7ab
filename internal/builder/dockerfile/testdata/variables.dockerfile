ARG REGISTRY=docker.io/library
ARG TAG
FROM ${REGISTRY}/ubuntu:${TAG:-24.04}

# PATH, HOME and NB_UID are known to the image only
ENV PATH=/opt/bin:$PATH
ENV BIN=$PATH:/more \
    LITERAL='$PATH' ESCAPED=\$PATH DOUBLE="a \"b\" \$c $HOME" \
    LIBS=/cuda/lib${LD_LIBRARY_PATH:+:${LD_LIBRARY_PATH}} \
    MODULES="/app:${PYTHONPATH:-}" \
    WHO=${NB_UID:-10${NB_ID-00}}
ENV old form with  "spaces" and $HOME

ARG TAG
ARG VERSION=1.2.3
ARG MAJOR=${VERSION%%.*}
ARG FILE=app_${VERSION//./_}.txt
ARG EMPTY=
ARG HOST=$HOSTNAME
ENV VERSION=v$VERSION EARLIER=$VERSION
RUN echo "$VERSION $MAJOR $FILE"

WORKDIR /srv
WORKDIR app/../$MAJOR
WORKDIR ${HOME}/x
WORKDIR y
COPY ${FILE} "dir-${MAJOR:+major}" $HOME/${EMPTY:-none}/
COPY ["with space.txt", "$MAJOR/"]
COPY --chown=${NB_UID}:${NB_GID:-100} --chmod=u=rwX,go=rX . ${HOME}
ADD a.txt ./
ADD --unpack=false b.tar.gz .
USER ${NB_UID}

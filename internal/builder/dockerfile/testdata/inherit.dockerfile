FROM nginx AS base
ARG COLOUR=red
ENV SHADE=dark
SHELL ["/bin/bash", "-ec"]
WORKDIR /srv
ENTRYPOINT ["/entry", "with space"]
CMD ["base"]
HEALTHCHECK CMD ["curl", "localhost"]

FROM base AS own-cmd
CMD ["own"]
HEALTHCHECK NONE

FROM base AS own-entrypoint
ENTRYPOINT ["/other"]

FROM own-cmd
COPY --from=own-entrypoint /srv /srv
RUN echo $COLOUR
ENV COLOUR=$COLOUR-$SHADE
WORKDIR sub
RUN echo $COLOUR
